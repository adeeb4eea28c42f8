// Command hashring-vectors answers, with Thanos's own code, where series go in hashrings.
//
// It reads tests/data/hashring/cases.json from its standard input and writes the vectors to its
// standard output. Series are made from their number, here and in tests/hashring_vectors.py alike.
// Nodes are written as ranks: positions in the sorted addresses of the configuration.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"github.com/thanos-io/thanos/pkg/receive"
	"github.com/thanos-io/thanos/pkg/store/labelpb"
	"github.com/thanos-io/thanos/pkg/store/storepb/prompb"
)

type placementCase struct {
	Name              string          `json:"name"`
	Algorithm         string          `json:"algorithm"`
	ReplicationFactor int             `json:"replication_factor"`
	NSeries           int             `json:"n_series"`
	NFull             int             `json:"n_full"`
	Tenants           []string        `json:"tenants"`
	Config            json.RawMessage `json:"config"`
}

type cases struct {
	Placements []placementCase `json:"placements"`
	Seeds      [][2]string     `json:"seeds"`
	Draws      []struct {
		Seed  string `json:"seed"`
		Count int    `json:"count"`
	} `json:"draws"`
	Globs struct {
		Patterns []string `json:"patterns"`
		Names    []string `json:"names"`
	} `json:"globs"`
	Configs []string `json:"configs"`
}

type placement struct {
	Error  string  `json:"error,omitempty"`
	SHA256 string  `json:"sha256,omitempty"`
	Nodes  []int   `json:"nodes,omitempty"`
	First  [][]int `json:"first,omitempty"`
}

type placementResult struct {
	Name    string               `json:"name"`
	Error   string               `json:"error,omitempty"`
	Tenants map[string]placement `json:"tenants,omitempty"`
}

type vectors struct {
	WrittenBy  string            `json:"written_by"`
	Placements []placementResult `json:"placements"`
	Seeds      []string          `json:"seeds"`
	Draws      []string          `json:"draws"`
	Globs      map[string]string `json:"globs"`
	Configs    []float64         `json:"config_hashes"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func labelValue(i, j int) string {
	switch (i*7 + j) % 11 {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("é€😀-%d", i)
	case 2:
		return strings.Repeat("x", i%300)
	case 3:
		return fmt.Sprintf("\xff\xfe%d", i)
	case 4:
		return strings.Repeat("v", i%97*20)
	default:
		return fmt.Sprintf("value-%d-%d", i, j)
	}
}

func series(i int) *prompb.TimeSeries {
	labels := make([]labelpb.ZLabel, 0, i%14)
	for j := range i % 14 {
		name := "__name__"
		if j > 0 {
			name = fmt.Sprintf("label_%02d", j)
		}
		labels = append(labels, labelpb.ZLabel{Name: name, Value: labelValue(i, j)})
	}
	if i%3 == 1 {
		slices.Reverse(labels)
	}
	return &prompb.TimeSeries{Labels: labels}
}

func ranks(config []receive.HashringConfig) map[string]int {
	var addresses []string
	for _, ring := range config {
		for _, endpoint := range ring.Endpoints {
			addresses = append(addresses, endpoint.Address)
		}
	}
	slices.Sort(addresses)
	rank := map[string]int{}
	for i, address := range slices.Compact(addresses) {
		rank[address] = i
	}
	return rank
}

func place(ring receive.Hashring, tenant string, c placementCase, rank map[string]int) placement {
	digest, used, first := sha256.New(), map[int]bool{}, [][]int{}
	for i := range c.NSeries {
		row := []int{}
		for n := range c.ReplicationFactor {
			endpoint, err := ring.GetN(tenant, series(i), uint64(n))
			if err != nil {
				return placement{Error: err.Error()}
			}
			node := rank[endpoint.Address]
			used[node] = true
			row = append(row, node)
			must(binary.Write(digest, binary.LittleEndian, int32(node)))
		}
		if i < c.NFull {
			first = append(first, row)
		}
	}
	nodes := []int{}
	for node := range used {
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	return placement{SHA256: hex.EncodeToString(digest.Sum(nil)), Nodes: nodes, First: first}
}

func placements(c placementCase) placementResult {
	config, err := receive.ParseConfig(c.Config)
	if err != nil {
		return placementResult{Name: c.Name, Error: err.Error()}
	}
	rank := ranks(config)
	algorithm := receive.HashringAlgorithm(c.Algorithm)
	ring, err := receive.NewMultiHashring(
		algorithm, uint64(c.ReplicationFactor), config, prometheus.NewRegistry())
	if err != nil {
		return placementResult{Name: c.Name, Error: err.Error()}
	}
	result := placementResult{Name: c.Name, Tenants: map[string]placement{}}
	for _, tenant := range c.Tenants {
		result.Tenants[tenant] = place(ring, tenant, c, rank)
		c.NFull = 0
	}
	return result
}

func drawsDigest(seed int64, count int) string {
	source, digest := rand.New(rand.NewSource(seed)), sha256.New()
	for range count {
		must(binary.Write(digest, binary.LittleEndian, source.Uint64()))
	}
	return hex.EncodeToString(digest.Sum(nil))
}

func globResults(pattern string, names []string) string {
	var results strings.Builder
	for _, name := range names {
		matched, err := filepath.Match(pattern, name)
		switch {
		case err != nil:
			results.WriteByte('!')
		case matched:
			results.WriteByte('y')
		default:
			results.WriteByte('n')
		}
	}
	return results.String()
}

func configHash(text string) float64 {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("hashrings-%d.json", os.Getpid()))
	must(os.WriteFile(path, []byte(text), 0o600))
	defer os.Remove(path)
	registry := prometheus.NewRegistry()
	watcher, err := receive.NewConfigWatcher(nil, registry, path, model.Duration(time.Minute))
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go watcher.Run(ctx)
	<-watcher.C()
	families, err := registry.Gather()
	must(err)
	for _, family := range families {
		if family.GetName() == "thanos_receive_config_hash" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	panic("no thanos_receive_config_hash")
}

func main() {
	var in cases
	must(json.NewDecoder(os.Stdin).Decode(&in))
	out := vectors{
		WrittenBy: "tests/interop/peers/vectors with github.com/thanos-io/thanos v0.42.4, " +
			runtime.Version(),
		Globs: map[string]string{},
	}
	for _, c := range in.Placements {
		out.Placements = append(out.Placements, placements(c))
	}
	for _, pair := range in.Seeds {
		seed := receive.ShuffleShardSeed(pair[0], pair[1])
		out.Seeds = append(out.Seeds, fmt.Sprint(seed))
	}
	for _, draw := range in.Draws {
		var seed int64
		_, err := fmt.Sscan(draw.Seed, &seed)
		must(err)
		out.Draws = append(out.Draws, drawsDigest(seed, draw.Count))
	}
	for _, pattern := range in.Globs.Patterns {
		out.Globs[pattern] = globResults(pattern, in.Globs.Names)
	}
	for _, text := range in.Configs {
		out.Configs = append(out.Configs, configHash(text))
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	must(encoder.Encode(out))
}
