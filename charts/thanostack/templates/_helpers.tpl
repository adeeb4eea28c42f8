{{- define "thanostack.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "thanostack.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "thanostack.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "thanostack.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "thanostack.selector" -}}
app.kubernetes.io/name: {{ include "thanostack.name" . }}-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "thanostack.labels" -}}
{{ include "thanostack.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "thanostack.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-operator" (include "thanostack.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name must name an existing account when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "thanostack.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The services' image, without its tag, of stacks that name none. */}}
{{- define "thanostack.services" -}}
{{ default (trimSuffix "-operator" .Values.image.repository) .Values.image.services }}
{{- end }}

{{/* Flags that `run` and `release` share. */}}
{{- define "thanostack.scope" -}}
{{- range .Values.watchNamespaces }}
- --namespace={{ . }}
{{- end }}
- --log-level={{ .Values.logLevel }}
{{- end }}

{{- define "thanostack.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "thanostack.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the operator may do in each namespace whose stacks it runs. */}}
{{- define "thanostack.rules" -}}
- apiGroups: [thanostack.io]
  resources: [thanosstacks]
  verbs: [get, list, watch, patch]
- apiGroups: [thanostack.io]
  resources: [thanosstacks/status]
  verbs: [patch]
- apiGroups: [thanostack.io]
  resources: [thanosstacks/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- if .Values.rbac.secrets }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
{{- end }}
