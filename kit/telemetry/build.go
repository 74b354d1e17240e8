package telemetry

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// BuildInfo says which program this is.
type BuildInfo struct {
	// Version is that of the main module, "(devel)" where it was built from a tree.
	Version string `json:"version"`
	// Revision is the commit it was built from, with "+dirty" where the tree had changes; "" where the build does not know.
	Revision string `json:"revision"`
	// Go is the version of the toolchain.
	Go string `json:"go"`
}

// Build returns what the linker wrote into the program.
func Build() BuildInfo {
	b := BuildInfo{Version: "(unknown)", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}

func newBuildCollector() prometheus.Collector {
	b := Build()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "concordat_build_info", Help: "Which program this is; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	}, func() float64 { return 1 })
}

// ContractDigest returns the SHA-256, in hexadecimal digits, of the descriptors of the services, with everything that they
// refer to: two programs with the same digest speak the same contract. Comments do not count.
func ContractDigest(services []protoreflect.ServiceDescriptor) (string, error) {
	files := make(map[string]protoreflect.FileDescriptor)
	var collect func(f protoreflect.FileDescriptor)
	collect = func(f protoreflect.FileDescriptor) {
		if _, seen := files[f.Path()]; seen || f.IsPlaceholder() {
			return
		}
		files[f.Path()] = f
		for i := range f.Imports().Len() {
			collect(f.Imports().Get(i).FileDescriptor)
		}
	}
	for _, s := range services {
		collect(s.ParentFile())
	}
	sum := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(files[path]))
		if err != nil {
			return "", fmt.Errorf("digest of %s: %w", path, err)
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n", path, len(raw)) // a hash takes everything
		_, _ = sum.Write(raw)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Contract adds the info metric of the contract that the service speaks. The digest is asked for when somebody reads it.
func (s *Service) Contract(digest func() string) error {
	return s.t.register(contractCollector{
		desc: prometheus.NewDesc("concordat_contract_info",
			"The digest of the contract that the service speaks; always 1.", []string{"digest"}, prometheus.Labels{"service": s.name}),
		digest: digest,
	})
}

type contractCollector struct {
	desc   *prometheus.Desc
	digest func() string
}

func (c contractCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c contractCollector) Collect(ch chan<- prometheus.Metric) {
	m, err := prometheus.NewConstMetric(c.desc, prometheus.GaugeValue, 1, c.digest())
	if err != nil {
		m = prometheus.NewInvalidMetric(c.desc, err)
	}
	ch <- m
}
