// Relabels label sets with the real Prometheus, for vectors and comparisons.
//
// Reads one JSON object a line: {"config": "<YAML list of rules>", "series": [[["name", "value"], …], …]}.
// Writes one a line: {"results": [null | [["name", "value"], …], …]}, or {"error": "…"} for rules
// that Prometheus refuses. Label sets keep their order, null is a dropped series.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"
)

type request struct {
	Config string        `json:"config"`
	Series [][][2]string `json:"series"`
}

type response struct {
	Error   string        `json:"error,omitempty"`
	Results [][][2]string `json:"results"`
}

func parse(text string) (rules []*relabel.Config, err error) {
	if err = yaml.UnmarshalStrict([]byte(text), &rules); err != nil {
		return nil, err
	}
	for _, rule := range rules {
		if err = rule.Validate(model.UTF8Validation); err != nil {
			return nil, err
		}
	}
	return rules, nil
}

func apply(pairs [][2]string, rules []*relabel.Config) [][2]string {
	set := labels.Labels{}
	for _, pair := range pairs {
		set = append(set, labels.Label{Name: pair[0], Value: pair[1]})
	}
	builder := labels.NewBuilder(set)
	if !relabel.ProcessBuilder(builder, rules...) {
		return nil
	}
	result := [][2]string{}
	builder.Labels().Range(func(l labels.Label) {
		result = append(result, [2]string{l.Name, l.Value})
	})
	return result
}

func answer(line []byte) (out response) {
	var in request
	if err := json.Unmarshal(line, &in); err != nil {
		panic(err)
	}
	rules, err := parse(in.Config)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	for _, pairs := range in.Series {
		out.Results = append(out.Results, apply(pairs, rules))
	}
	return out
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		text, err := json.Marshal(answer(lines.Bytes()))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(text))
	}
}
