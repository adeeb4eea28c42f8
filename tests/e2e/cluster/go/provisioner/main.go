// Gives each volume claim a folder on the one node, as a volume of type "local": with that type the
// kubelet sets group and mode as it does on a disk, which a hostPath volume would not get.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

type folders struct{ root, node string }

func (f folders) Provision(_ context.Context, options controller.ProvisionOptions) (
	*core.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	path := filepath.Join(f.root, fmt.Sprintf("%s-%s-%s", claim.Namespace, claim.Name, claim.UID))
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	// Whatever the umask: a pod's user may be anyone.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			Capacity: core.ResourceList{
				core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage],
			},
			PersistentVolumeSource: core.PersistentVolumeSource{
				Local: &core.LocalVolumeSource{Path: path},
			},
			NodeAffinity: f.onThisNode(),
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

func (f folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	local := volume.Spec.Local
	if local == nil || filepath.Dir(local.Path) != f.root {
		return fmt.Errorf("volume %s is not below %s", volume.Name, f.root)
	}
	return os.RemoveAll(local.Path)
}

func (f folders) onThisNode() *core.VolumeNodeAffinity {
	here := core.NodeSelectorRequirement{
		Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{f.node},
	}
	term := core.NodeSelectorTerm{MatchExpressions: []core.NodeSelectorRequirement{here}}
	return &core.VolumeNodeAffinity{
		Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{term}},
	}
}

func run(kubeconfig, provisioner string, f folders) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx := context.Background()
	controller.NewProvisionController(ctx, client, provisioner, f, controller.LeaderElection(false)).Run(ctx)
	return nil
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file with the API server's address and credentials")
	provisioner := flag.String("provisioner", "thanostack.io/folders", "name that storage classes use")
	root := flag.String("root", "", "folder that gets one folder a claim")
	node := flag.String("node", "", "name of the node that the folders are on")
	flag.Parse()
	if err := run(*kubeconfig, *provisioner, folders{filepath.Clean(*root), *node}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
