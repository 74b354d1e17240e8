package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// begin opens an import.
func begin(ctx context.Context, t *testing.T, c usersv1.UserServiceClient) usersv1.UserService_CreateUsersClient {
	t.Helper()
	stream, err := c.CreateUsers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// send sends rows until the stream breaks.
func send(t *testing.T, stream usersv1.UserService_CreateUsersClient, rows []*usersv1.CreateUserRequest) {
	t.Helper()
	for _, r := range rows {
		err := stream.Send(&usersv1.CreateUsersRequest{User: r})
		if errors.Is(err, io.EOF) {
			return // the answer says why
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// importAll imports rows and returns the answer.
func importAll(t *testing.T, c usersv1.UserServiceClient, rows []*usersv1.CreateUserRequest) *usersv1.CreateUsersResponse {
	t.Helper()
	stream := begin(patient(t), t, c) // they may be many
	send(t, stream, rows)
	resp, err := stream.CloseAndRecv()
	if err != nil {
		t.Fatalf("import: %v", err)
	}
	return resp
}

func requests(from, to int) []*usersv1.CreateUserRequest {
	var rows []*usersv1.CreateUserRequest
	for n := from; n < to; n++ {
		rows = append(rows, request(n))
	}
	return rows
}

// failure is what a test expects of a row.
type failure struct {
	index  int32
	code   codes.Code
	reason string
}

func wantFailures(t *testing.T, resp *usersv1.CreateUsersResponse, want ...failure) {
	t.Helper()
	if int(resp.GetFailedCount()) != len(want) || len(resp.GetFailures()) != len(want) {
		t.Fatalf("%d failures, %d told, want %d", resp.GetFailedCount(), len(resp.GetFailures()), len(want))
	}
	for i, f := range resp.GetFailures() {
		got := grpcfault.FromStatus(f.GetStatus())
		if f.GetIndex() != want[i].index || grpcfault.Code(got.Kind()) != want[i].code || got.Reason() != want[i].reason {
			t.Errorf("row %d: %v %s, want row %d: %v %s", f.GetIndex(), got.Kind(), got.Reason(), want[i].index, want[i].code, want[i].reason)
		}
	}
}

func TestAnImportMakesItsRows(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	resp := importAll(t, c, requests(0, 1201))
	if resp.GetCreatedCount() != 1201 {
		t.Errorf("%d were made, want 1201", resp.GetCreatedCount())
	}
	wantFailures(t, resp)
	if got := total(t, c); got != 1201 {
		t.Errorf("%d users, want 1201", got)
	}
	got, err := c.GetUser(timeout(t), &usersv1.GetUserRequest{UserId: request(700).GetUserId()})
	if err != nil || got.GetUser().GetEmail() != request(700).GetEmail() {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAnImportOfNothingMakesNothing(t *testing.T) {
	t.Parallel()
	if resp := importAll(t, admin(start(t)), nil); !proto.Equal(resp, &usersv1.CreateUsersResponse{}) {
		t.Errorf("got %v", resp)
	}
}

func TestAnImportCountsRowsAndNotUsers(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	resp := importAll(t, c, append(requests(0, 2), request(1)))
	wantFailures(t, resp)
	if resp.GetCreatedCount() != 3 || total(t, c) != 2 {
		t.Errorf("%d rows have their user, %d users are there, want 3 and 2", resp.GetCreatedCount(), total(t, c))
	}
}

func TestABadRowFailsAlone(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	create(t, c, request(5000))
	rows := requests(0, 1000)
	rows[3].Email = "nobody"
	rows[499] = nil
	rows[500].Email = strings.ToUpper(request(5000).GetEmail())
	rows[501].UserId = request(5000).GetUserId()
	rows[502].RequestId = request(5000).GetRequestId()
	rows[503].ValidateOnly = true
	rows[999].DisplayName = ""
	resp := importAll(t, c, rows)
	wantFailures(t, resp,
		failure{3, codes.InvalidArgument, "EMAIL_INVALID"},
		failure{499, codes.InvalidArgument, "INVALID_REQUEST"},
		failure{500, codes.AlreadyExists, "EMAIL_TAKEN"},
		failure{501, codes.AlreadyExists, "USER_ID_TAKEN"},
		failure{502, codes.FailedPrecondition, "REQUEST_ID_REUSED"},
		failure{503, codes.InvalidArgument, "INVALID_REQUEST"},
		failure{999, codes.InvalidArgument, "INVALID_REQUEST"},
	)
	if resp.GetCreatedCount() != 993 || total(t, c) != 994 {
		t.Errorf("%d were made, %d are there", resp.GetCreatedCount(), total(t, c))
	}
	kittest.WantViolations(t, grpcfault.FromStatus(resp.GetFailures()[0].GetStatus()), "email")
	kittest.WantViolations(t, grpcfault.FromStatus(resp.GetFailures()[1].GetStatus()), "email", "display_name", "request_id")

	// What the row failed with is what CreateUser ends with.
	_, err := c.CreateUser(timeout(t), rows[501])
	alone := kittest.WantFault(t, err, codes.AlreadyExists, "USER_ID_TAKEN")
	inRow := grpcfault.FromStatus(resp.GetFailures()[3].GetStatus())
	if inRow.Domain() != alone.Domain() || inRow.Text() != alone.Text() || inRow.Metadata()["user_id"] != alone.Metadata()["user_id"] {
		t.Errorf("the row failed with %v, the call with %v", inRow, alone)
	}
}

func TestAnImportOfLargeRowsHasRoomForThem(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	rows := requests(0, 120) // 64 kB each, so that not all have room at once
	for _, r := range rows {
		r.Labels = make(map[string]string, 64)
		for i := range 64 {
			r.Labels[fmt.Sprintf("key-%d", i)] = strings.Repeat("\U0001f600", 255)
		}
	}
	resp := importAll(t, c, rows)
	wantFailures(t, resp)
	if resp.GetCreatedCount() != 120 {
		t.Errorf("%d were made", resp.GetCreatedCount())
	}
}

func TestRowsOfOneImportClashInTheirOrder(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	sameRequest, sameID, sameEmail := request(11), request(12), request(13)
	sameRequest.RequestId = request(1).GetRequestId()
	sameID.UserId = request(1).GetUserId()
	sameEmail.Email = request(1).GetEmail()
	resp := importAll(t, c, []*usersv1.CreateUserRequest{request(1), request(1), sameRequest, sameID, sameEmail, request(2)})
	wantFailures(t, resp,
		failure{2, codes.FailedPrecondition, "REQUEST_ID_REUSED"},
		failure{3, codes.AlreadyExists, "USER_ID_TAKEN"},
		failure{4, codes.AlreadyExists, "EMAIL_TAKEN"},
	)
	// The second row is a repetition of the first: it counts as made and makes nobody.
	if resp.GetCreatedCount() != 3 || total(t, c) != 2 {
		t.Errorf("%d were made, %d are there", resp.GetCreatedCount(), total(t, c))
	}
}

func TestFailuresAreToldUpToAThousandAndCountedAll(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	rows := requests(0, 1500)
	for i := range rows[:1400] {
		rows[i].Email = "nobody"
	}
	resp := importAll(t, c, rows)
	if resp.GetFailedCount() != 1400 || resp.GetCreatedCount() != 100 || len(resp.GetFailures()) != 1000 {
		t.Errorf("%d failed, %d told, %d made", resp.GetFailedCount(), len(resp.GetFailures()), resp.GetCreatedCount())
	}
	if last := resp.GetFailures()[999].GetIndex(); last != 999 {
		t.Errorf("the last one told is row %d, want 999", last)
	}
}

// The answer is one message: what does not fit into it must not take the rest with it.
func TestFailuresOfManyRulesLeaveRoomForTheAnswer(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	rows := requests(0, 1001)
	for _, r := range rows[:1000] {
		r.Labels = make(map[string]string)
		for n := range 64 {
			r.Labels[fmt.Sprint("Capital", n)] = "x"
		}
	}
	resp := importAll(t, c, rows)
	if resp.GetFailedCount() != 1000 || resp.GetCreatedCount() != 1 {
		t.Errorf("%d failed, %d made", resp.GetFailedCount(), resp.GetCreatedCount())
	}
	if size, n := proto.Size(resp), len(resp.GetFailures()); size > 4<<20 || n == 0 || n == 1000 {
		t.Errorf("%d bytes with %d failures", size, n)
	}
	for i, f := range resp.GetFailures() {
		if int(f.GetIndex()) != i {
			t.Fatalf("failure %d is of row %d", i, f.GetIndex())
		}
	}
}

// arrived returns once the service has n users.
func arrived(t *testing.T, c usersv1.UserServiceClient, n int) {
	t.Helper()
	ctx := timeout(t)
	for got := -1; got < n; {
		resp, err := c.ListUsers(ctx, &usersv1.ListUsersRequest{PageSize: 1})
		if err != nil {
			t.Fatalf("waiting for %d users, %d are there: %v", n, got, err)
		}
		got = int(resp.GetTotalSize())
	}
}

func TestAnImportThatBreaksOffIsRepeated(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	rows := requests(0, 1000)
	ctx, breakOff := context.WithCancel(timeout(t))
	stream := begin(ctx, t, c)
	send(t, stream, rows[:700])
	arrived(t, c, 700) // rows are stored while the stream runs
	breakOff()
	err := stream.RecvMsg(&usersv1.CreateUsersResponse{})
	kittest.WantFault(t, err, codes.Canceled, "CANCELED")

	for range 2 {
		resp := importAll(t, c, rows)
		wantFailures(t, resp)
		if resp.GetCreatedCount() != 1000 || total(t, c) != 1000 {
			t.Errorf("%d were made, %d are there; want 1000", resp.GetCreatedCount(), total(t, c))
		}
	}
}

func TestAnImportEndsWhenTheServerStops(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	stream := begin(timeout(t), t, c)
	send(t, stream, requests(0, 10))
	arrived(t, c, 10)
	stopping(t, h, c)
	err := stream.RecvMsg(&usersv1.CreateUsersResponse{})
	kittest.WantFault(t, err, codes.Unavailable, "DRAINING")
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestAnImportThatNeverEndsIsEndedByItsDeadline(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	total(t, c) // the connection stands before the time begins
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	stream := begin(ctx, t, c)
	send(t, stream, requests(0, 5))
	err := stream.RecvMsg(&usersv1.CreateUsersResponse{})
	kittest.WantFault(t, err, codes.DeadlineExceeded, "DEADLINE_EXCEEDED")
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if strings.Contains(h.Log.String(), "drain timed out") {
		t.Error("the handler went on after the deadline")
	}
}

func TestARowThatCannotBeDecodedEndsTheImportAndKeepsWhatCameBefore(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	stream := begin(timeout(t), t, c)
	send(t, stream, requests(0, 5))
	arrived(t, c, 5)
	broken := &usersv1.CreateUsersRequest{}
	broken.ProtoReflect().SetUnknown([]byte{0x0a, 0x7f, 0x01}) // field 1 of 127 bytes, which end after one
	if err := stream.Send(broken); err != nil {
		t.Fatal(err)
	}
	_, err := stream.CloseAndRecv()
	kittest.WantFault(t, err, codes.InvalidArgument, "MALFORMED_REQUEST")
	if got := total(t, c); got != 5 {
		t.Errorf("%d users, want 5", got)
	}
}

func TestImportsAtOnceMakeEachUserOnce(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	const imports, size, step = 8, 400, 100
	done := make(chan error, imports)
	for n := range imports {
		go func() {
			stream, err := c.CreateUsers(t.Context())
			if err != nil {
				done <- err
				return
			}
			for _, r := range requests(n*step, n*step+size) {
				if err := stream.Send(&usersv1.CreateUsersRequest{User: r}); err != nil {
					break // the answer says why
				}
			}
			resp, err := stream.CloseAndRecv()
			if err == nil && (resp.GetCreatedCount() != size || resp.GetFailedCount() != 0) {
				err = fmt.Errorf("import %d: %d made, %d failed", n, resp.GetCreatedCount(), resp.GetFailedCount())
			}
			done <- err
		}()
	}
	for range imports {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got, want := total(t, c), (imports-1)*step+size; got != want {
		t.Errorf("%d users, want %d", got, want)
	}
}
