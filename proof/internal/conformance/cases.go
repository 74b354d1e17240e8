package conformance

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// interopCase is one of the cases of grpc-go's interoperability client, under the name that it has there.
type interopCase struct {
	name string
	// run makes the calls of the case. Most cases end the process where they fail, and return nothing.
	run func(context.Context, dialer) error
	// design says why the path answers otherwise; "" where it does not.
	design string
	// instead makes the same calls and fails where the path's answer is not the one that design speaks of.
	instead func(context.Context, dialer) error
}

// dialer returns a connection of its own to the server, that uses the named balancer. It connects with the first call.
type dialer func(balancer string) (*grpc.ClientConn, error)

// The balancers: the usual one, and that of interop which takes load reports.
const (
	pickFirst   = "pick_first"
	loadReports = "test_backend_metrics_load_balancer"
)

// notRun are the cases of that client which are not run, and why.
var notRun = [][]string{
	{"compute_engine_creds", "needs an account at Google"},
	{"service_account_creds", "needs an account at Google"},
	{"jwt_token_creds", "needs an account at Google"},
	{"per_rpc_creds", "needs an account at Google"},
	{"oauth2_auth_token", "needs an account at Google"},
	{"google_default_credentials", "needs an account at Google"},
	{"compute_engine_channel_credentials", "needs an account at Google"},
	{"orca_oob", "no server sends the reports often enough without a switch inside grpc-go; the kit sends none, as in orca_per_rpc"},
}

// Why the path answers otherwise.
const (
	masked    = "a status that is no fault of the contract leaves as INTERNAL, without its text"
	noReports = "clients of the kit balance by turns, so its servers send no load reports"
)

// interopCases returns all cases that are run, in the order of the client's own list.
func interopCases() []interopCase {
	return []interopCase{
		{name: "empty_unary", run: calls(interop.DoEmptyUnaryCall)},
		{name: "large_unary", run: calls(interop.DoLargeUnaryCall)},
		{name: "client_streaming", run: calls(interop.DoClientStreaming)},
		{name: "server_streaming", run: calls(interop.DoServerStreaming)},
		{name: "ping_pong", run: calls(interop.DoPingPong)},
		{name: "empty_stream", run: calls(interop.DoEmptyStream)},
		{name: "timeout_on_sleeping_server", run: calls(interop.DoTimeoutOnSleepingServer)},
		{name: "cancel_after_begin", run: calls(interop.DoCancelAfterBegin)},
		{name: "cancel_after_first_response", run: calls(interop.DoCancelAfterFirstResponse)},
		{name: "status_code_and_message", run: calls(interop.DoStatusCodeAndMessage), design: masked, instead: maskedStatus},
		{name: "special_status_message", run: calls(interop.DoSpecialStatusMessage), design: masked, instead: maskedStatus},
		{name: "custom_metadata", run: calls(interop.DoCustomMetadata)},
		{name: "unimplemented_method", run: on(pickFirst, interop.DoUnimplementedMethod)},
		{name: "unimplemented_service", run: on(pickFirst, func(ctx context.Context, conn *grpc.ClientConn) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
		})},
		{name: "pick_first_unary", run: on(pickFirst, func(ctx context.Context, conn *grpc.ClientConn) {
			interop.DoPickFirstUnary(ctx, testgrpc.NewTestServiceClient(conn))
		})},
		{name: "rpc_soak", run: soak(1)},
		{name: "channel_soak", run: soak(soakCalls)},
		{name: "orca_per_rpc", run: on(loadReports, func(ctx context.Context, conn *grpc.ClientConn) {
			interop.DoORCAPerRPCTest(ctx, testgrpc.NewTestServiceClient(conn))
		}), design: noReports, instead: withoutReport},
	}
}

// on returns a case that uses one connection.
func on(balancer string, do func(context.Context, *grpc.ClientConn)) func(context.Context, dialer) error {
	return func(ctx context.Context, dial dialer) error {
		conn, err := dial(balancer)
		if err == nil {
			do(ctx, conn)
		}
		return err
	}
}

// calls returns a case that calls the TestService.
func calls(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, dialer) error {
	return on(pickFirst, func(ctx context.Context, conn *grpc.ClientConn) { do(ctx, testgrpc.NewTestServiceClient(conn)) })
}

// soakCalls is how many calls a soak makes: the client's default, as are the sizes.
const soakCalls = 10

// soak returns a case of large calls, one after the other, on as many connections in turn.
func soak(connections int) func(context.Context, dialer) error {
	return func(ctx context.Context, dial dialer) error {
		var conns []*grpc.ClientConn
		for range connections {
			conn, err := dial(pickFirst)
			if err != nil {
				return err
			}
			conns = append(conns, conn)
		}
		call := 0
		interop.DoSoakTest(ctx, interop.SoakTestConfig{
			RequestSize: 271828, ResponseSize: 314159, Iterations: soakCalls, NumWorkers: 1,
			PerIterationMaxAcceptableLatency: caseTimeout, OverallTimeout: caseTimeout, // how fast it is is no matter here
			ServerAddr: conns[0].Target(),
			ChannelForTest: func() (*grpc.ClientConn, func()) {
				conn := conns[call%connections]
				call++
				return conn, func() {}
			},
		})
		return nil
	}
}

// maskedStatus asks for a status with the code and the text of the two cases.
func maskedStatus(ctx context.Context, dial dialer) error {
	conn, err := dial(pickFirst)
	if err != nil {
		return err
	}
	tc := testgrpc.NewTestServiceClient(conn)
	wanted := &testgrpc.EchoStatus{Code: int32(codes.Unknown), Message: "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"}
	_, err = tc.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseStatus: wanted})
	if err := isMasked(err); err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseStatus: wanted}); err != nil {
		return err
	}
	_, err = stream.Recv()
	if err := isMasked(err); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

func isMasked(err error) error {
	st := status.Convert(err)
	if st.Code() == codes.Internal && st.Message() != "" && !strings.Contains(st.Message(), "test") {
		return nil
	}
	return fmt.Errorf("answered %v %q, which is no INTERNAL without the text", st.Code(), st.Message())
}

// withoutReport asks for a report with the answer, and does without.
func withoutReport(ctx context.Context, dial dialer) error {
	conn, err := dial(pickFirst)
	if err != nil {
		return err
	}
	_, err = testgrpc.NewTestServiceClient(conn).UnaryCall(ctx, &testgrpc.SimpleRequest{
		OrcaPerQueryReport: &testgrpc.TestOrcaReport{CpuUtilization: 0.5},
	})
	return err
}
