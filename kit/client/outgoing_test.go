package client

import (
	"context"
	"runtime/debug"
	"testing"

	"google.golang.org/grpc"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

func TestNothingIsSentForACallerThatHasGone(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	leave()
	c := echoCaller(t)
	err := c.unary(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""), nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		t.Error("a call was sent")
		return nil
	})
	if fault.KindOf(err) != fault.Canceled {
		t.Errorf("call: %v", err)
	}
	_, err = c.stream(ctx, &grpc.StreamDesc{ServerStreams: true}, nil, echo.Watch, func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		t.Error("a stream was opened")
		return nil, nil
	})
	if fault.KindOf(err) != fault.Canceled {
		t.Errorf("stream: %v", err)
	}
}

func TestWhatAClientRefusesByItselfHasAReasonInTheContract(t *testing.T) {
	for _, f := range []*fault.Fault{errHopeless, errNoKey} {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
		if _, ok := policyv1.ErrorReason_value["ERROR_REASON_"+f.Reason()]; !ok || f.Domain() != fault.Domain {
			t.Errorf("%s of %q is not in policy.v1.ErrorReason", f.Reason(), f.Domain())
		}
	}
}

func TestAProgramNamesItsVersionAsItWasBuilt(t *testing.T) {
	revision := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "0123456789abcdef0123"}}
	for name, tc := range map[string]struct {
		build *debug.BuildInfo
		want  string
	}{
		"a release":                        {&debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}, Settings: revision}, "orders/v1.2.3"},
		"a build in the tree, by its hash": {&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: revision}, "orders/0123456789ab"},
		"a short hash":                     {&debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123"}}}, "orders/0123"},
		"a build that knows nothing":       {&debug.BuildInfo{}, "orders/devel"},
		"a build without modules":          {nil, "orders/devel"},
	} {
		if got := agent("orders", tc.build); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
