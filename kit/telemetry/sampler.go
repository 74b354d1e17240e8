package telemetry

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"go.opentelemetry.io/otel/trace"
)

// sampler decides which calls are recorded. It is that of the OpenTelemetry SDK with the same numbers, so that services in
// other languages decide alike; it is our own because it must cost nothing where the answer is no.
type sampler struct {
	parent bool   // the caller's decision counts, where there is one
	bound  uint64 // a trace is recorded where the number in its id is below
}

// The standard variables.
const (
	envSampler    = "OTEL_TRACES_SAMPLER"
	envSamplerArg = "OTEL_TRACES_SAMPLER_ARG"
)

// CheckRatio returns an error unless the number can be a share.
func CheckRatio(ratio float64) error {
	if !(ratio >= 0 && ratio <= 1) {
		return fmt.Errorf("the trace ratio %v is not from 0 to 1", ratio)
	}
	return nil
}

func newSampler(ratio float64, getenv func(string) string) (sampler, error) {
	name := getenv(envSampler)
	arg := func() (float64, error) {
		text := getenv(envSamplerArg)
		if text == "" {
			return 1, nil // as the specification says
		}
		r, err := strconv.ParseFloat(text, 64)
		if err == nil {
			err = CheckRatio(r)
		}
		if err != nil {
			return 0, fmt.Errorf("%s is not a number from 0 to 1", envSamplerArg)
		}
		return r, nil
	}
	var (
		parent bool
		err    error
	)
	switch name {
	case "":
		parent = true
	case "always_on":
		ratio = 1
	case "always_off":
		ratio = 0
	case "traceidratio":
		ratio, err = arg()
	case "parentbased_always_on":
		parent, ratio = true, 1
	case "parentbased_always_off":
		parent, ratio = true, 0
	case "parentbased_traceidratio":
		parent = true
		ratio, err = arg()
	default:
		err = fmt.Errorf("%s=%q is not a sampler that is known here", envSampler, name)
	}
	if err != nil {
		return sampler{}, err
	}
	return sampler{parent: parent, bound: boundOf(ratio)}, nil
}

func boundOf(ratio float64) uint64 {
	if ratio >= 1 {
		return math.MaxUint64 // above all: ids have 63 bits of it
	}
	return uint64(ratio * (1 << 63))
}

// root decides for a trace that begins here.
func (s sampler) root(id trace.TraceID) bool {
	return binary.BigEndian.Uint64(id[8:])>>1 < s.bound
}

// child decides for a trace that began elsewhere.
func (s sampler) child(id trace.TraceID, sampled bool) bool {
	if s.parent {
		return sampled
	}
	return s.root(id)
}
