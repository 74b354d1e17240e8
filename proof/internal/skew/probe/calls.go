package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
)

// The kinds of call.
const (
	unary        = "unary"
	serverStream = "server stream"
	clientStream = "client stream"
	bothWays     = "both ways"
	rest         = "REST"
)

// calls makes every call that the probe knows, one after the other, so that what it sees depends on nothing but the
// server.
func (p *probe) calls(ctx context.Context) error {
	person, err := p.accounts(ctx)
	if err != nil {
		return err
	}
	p.profiles(ctx, person)
	p.imports(ctx)
	p.money(ctx, person)
	p.books(ctx)
	p.overREST(ctx, person)
	p.ends(ctx, person)
	return p.err
}

// step writes down one call whose answers are all there. want is the code that it should end with.
func (p *probe) step(kind, method, step string, want codes.Code, err error, answers ...proto.Message) {
	c := &transcript.Call{Step: step, Kind: kind, Method: method}
	code := status.Code(err)
	if code != want {
		c.Problem = fmt.Sprintf("ends with %s, not %s: %v", code, want, err)
	}
	if err != nil {
		c.Saw = append(c.Saw, transcript.Entry{Path: "code", Value: code.String()}, transcript.Entry{Path: "reason", Value: reason(err)})
	} else {
		for i, a := range answers {
			if bytes.Contains(a.ProtoReflect().GetUnknown(), future) {
				c.Problem = "the answer has the unknown field of the request"
			}
			c.Saw = append(c.Saw, transcript.Of(fmt.Sprintf("answer %d", i), a, transcript.Shape)...)
		}
	}
	p.line(transcript.Line{Call: c})
}

// fails adds to the transcript that a step saw something else than it should.
func (p *probe) fails(kind, method, step, format string, args ...any) {
	p.line(transcript.Line{Call: &transcript.Call{Step: step, Kind: kind, Method: method, Problem: fmt.Sprintf(format, args...)}})
}

// reason returns the machine-readable part of an error.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetDomain() + " " + info.GetReason()
		}
	}
	return ""
}

// call makes one unary call, writes it down and returns the answer, which is empty where there is none.
func call[Req, Resp any](
	p *probe, ctx context.Context, method, step string, want codes.Code,
	do func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req,
) *Resp {
	resp, err := do(ctx, req)
	if err != nil {
		resp = new(Resp)
	}
	p.step(unary, method, step, want, err, any(resp).(proto.Message))
	return resp
}

// ok is call for one that should end well.
func ok[Req, Resp any](
	p *probe, ctx context.Context, method, step string, do func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), req *Req,
) *Resp {
	return call(p, ctx, method, step, codes.OK, do, req)
}

// all reads a stream to its end.
func all[Resp any](stream grpc.ServerStreamingClient[Resp], err error) ([]proto.Message, error) {
	var answers []proto.Message
	for err == nil {
		var m *Resp
		if m, err = stream.Recv(); err == nil {
			answers = append(answers, any(m).(proto.Message))
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return answers, err
}

// person is somebody with an account.
type person struct{ id, email, password, token, refresh string }

// accounts signs an administrator up, and changes the states of another account.
func (p *probe) accounts(ctx context.Context) (person, error) {
	const service = "auth.v1.SessionService/"
	me := person{email: p.email("ada"), password: "correct horse battery " + p.seed}
	me.id = ok(p, ctx, service+"SignUp", "an administrator signs up", p.sessions.SignUp, &authv1.SignUpRequest{
		Email: me.email, Password: me.password, DisplayName: "Ada", RequestId: p.uuid("sign up"), AdminCode: p.place.AdminCode,
	}).GetAccount().GetUserId()
	call(p, ctx, service+"SignIn", "a wrong password", codes.Unauthenticated, p.sessions.SignIn, &authv1.SignInRequest{Email: me.email, Password: "wrong"})
	tokens := ok(p, ctx, service+"SignIn", "she signs in", p.sessions.SignIn, &authv1.SignInRequest{Email: me.email, Password: me.password}).GetTokens()
	tokens = ok(p, ctx, service+"RefreshSession", "she refreshes the session", p.sessions.RefreshSession, &authv1.RefreshSessionRequest{RefreshToken: tokens.GetRefreshToken()}).GetTokens()
	me.token, me.refresh = tokens.GetAccessToken(), tokens.GetRefreshToken()
	if me.id == "" || me.token == "" {
		p.fails(unary, service+"SignIn", "she has an id and a token", "SignUp or the session gave none")
	}
	ok(p, ctx, "auth.v1.KeyService/GetJwks", "the keys of tokens", p.keys.GetJwks, &authv1.GetJwksRequest{})

	const asked = "auth.v1.AuthService/"
	ok(p, ctx, asked+"GetUser", "a service asks for her account", p.auth.GetUser, withFuture(&authv1.GetUserRequest{UserId: me.id}))
	call(p, ctx, asked+"GetUser", "an account that is not there", codes.NotFound, p.auth.GetUser, &authv1.GetUserRequest{UserId: p.uuid("nobody")})
	ok(p, ctx, asked+"ValidateUser", "a service checks her password", p.auth.ValidateUser, &authv1.ValidateUserRequest{Username: me.email, Password: me.password})
	ok(p, ctx, asked+"ValidateUser", "a service checks a wrong one", p.auth.ValidateUser, &authv1.ValidateUserRequest{Username: me.email, Password: "wrong"})

	const admin = "auth.v1.AdminService/"
	other := ok(p, ctx, service+"SignUp", "somebody else signs up", p.sessions.SignUp, &authv1.SignUpRequest{
		Email: p.email("bob"), Password: me.password, DisplayName: "Bob", RequestId: p.uuid("sign up bob"),
	}).GetAccount().GetUserId()
	asAdmin := as(ctx, me.token)
	feed, err := p.auth.WatchUserEvents(ctx, &authv1.WatchUserEventsRequest{UserId: other})
	first, err := next(feed, err)
	ok(p, asAdmin, admin+"LockUser", "lock", p.admin.LockUser, &authv1.LockUserRequest{UserId: other})
	ok(p, asAdmin, admin+"UnlockUser", "unlock", p.admin.UnlockUser, &authv1.UnlockUserRequest{UserId: other})
	ok(p, asAdmin, admin+"DeactivateUser", "deactivate", p.admin.DeactivateUser, &authv1.DeactivateUserRequest{UserId: other})
	ok(p, asAdmin, admin+"ReactivateUser", "reactivate", p.admin.ReactivateUser, &authv1.ReactivateUserRequest{UserId: other})
	seen := []proto.Message{first}
	for range 4 {
		var m *authv1.WatchUserEventsResponse
		if m, err = nextThat(feed, err, func(m *authv1.WatchUserEventsResponse) bool { return m.GetEvent() != nil }); err == nil {
			seen = append(seen, m)
		}
	}
	p.step(serverStream, asked+"WatchUserEvents", "what happened to the account", codes.OK, err, seen...)
	call(p, ctx, admin+"LockUser", "nobody may lock", codes.Unauthenticated, p.admin.LockUser, &authv1.LockUserRequest{UserId: other})
	return me, p.err
}

// next returns the next message of a stream.
func next[Resp any](stream grpc.ServerStreamingClient[Resp], err error) (*Resp, error) {
	return nextThat(stream, err, func(*Resp) bool { return true })
}

// nextThat returns the next message of a stream that is one to look at.
func nextThat[Resp any](stream grpc.ServerStreamingClient[Resp], err error, wanted func(*Resp) bool) (*Resp, error) {
	for err == nil {
		var m *Resp
		if m, err = stream.Recv(); err == nil && wanted(m) {
			return m, nil
		}
	}
	return new(Resp), err
}

// profiles makes, changes, lists and removes users.
func (p *probe) profiles(ctx context.Context, me person) {
	const service = "users.v1.UserService/"
	feed, err := p.users.WatchUsers(ctx, &usersv1.WatchUsersRequest{Filter: `labels.part = "profiles"`})
	first, err := next(feed, err)
	seen := []proto.Message{first}
	id := p.uuid("carol")
	create := func(name string) *usersv1.CreateUserRequest {
		return &usersv1.CreateUserRequest{
			UserId: p.uuid(name), Email: p.email(name), DisplayName: "The one " + name, FirstName: name, LastName: "Skew", RequestId: p.uuid("create " + name),
			Labels: map[string]string{"part": "profiles", "name": name}, Verified: true,
			Address: &usersv1.Address{CountryCode: "NL", Lines: []string{"Keizersgracht 1", "2 hoog"}, Locality: "Amsterdam", AdministrativeArea: "NH", PostalCode: "1015"},
		}
	}
	ok(p, ctx, service+"CreateUser", "a user", p.users.CreateUser, withFuture(create("carol")))
	ok(p, ctx, service+"CreateUser", "the same again", p.users.CreateUser, create("carol"))
	ok(p, ctx, service+"CreateUser", "another user", p.users.CreateUser, create("dan"))
	ok(p, ctx, service+"GetUser", "the user", p.users.GetUser, withFuture(&usersv1.GetUserRequest{UserId: id}))
	ok(p, as(ctx, me.token), service+"GetUser", "her own profile, over the edge", p.people.GetUser, &usersv1.GetUserRequest{UserId: me.id})
	call(p, ctx, service+"GetUser", "a user who is not there", codes.NotFound, p.users.GetUser, &usersv1.GetUserRequest{UserId: p.uuid("nobody")})
	call(p, ctx, service+"GetUser", "no id", codes.InvalidArgument, p.users.GetUser, &usersv1.GetUserRequest{})
	ok(p, ctx, service+"BatchGetUsers", "two users and a missing one", p.users.BatchGetUsers, &usersv1.BatchGetUsersRequest{UserIds: []string{id, p.uuid("dan"), p.uuid("nobody")}})
	ok(p, ctx, service+"UpdateUser", "other names", p.users.UpdateUser, &usersv1.UpdateUserRequest{
		User: withFuture(&usersv1.User{
			UserId: id, DisplayName: "Another name", Labels: map[string]string{"team": "blue"}, Address: &usersv1.Address{CountryCode: "BE", Locality: "Gent"},
		}),
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name", "labels.team", "address.country_code", "address.locality"}}, RequestId: p.uuid("update carol"),
	})
	page := ok(p, ctx, service+"ListUsers", "a page", p.users.ListUsers, &usersv1.ListUsersRequest{Filter: `labels.part = "profiles"`, PageSize: 1, OrderBy: "email"})
	ok(p, ctx, service+"ListUsers", "the next page", p.users.ListUsers, &usersv1.ListUsersRequest{
		Filter: `labels.part = "profiles"`, PageSize: 1, OrderBy: "email", PageToken: page.GetNextPageToken(),
	})
	call(p, ctx, service+"ListUsers", "no filter at all", codes.InvalidArgument, p.users.ListUsers, &usersv1.ListUsersRequest{Filter: "("})
	ok(p, ctx, service+"DisableUser", "disable", p.users.DisableUser, &usersv1.DisableUserRequest{UserId: id, RequestId: p.uuid("disable")})
	ok(p, ctx, service+"EnableUser", "enable", p.users.EnableUser, &usersv1.EnableUserRequest{UserId: id, RequestId: p.uuid("enable")})
	ok(p, ctx, service+"DeleteUser", "delete", p.users.DeleteUser, &usersv1.DeleteUserRequest{UserId: id, RequestId: p.uuid("delete")})
	ok(p, ctx, service+"GetUser", "the deleted user", p.users.GetUser, &usersv1.GetUserRequest{UserId: id})
	ok(p, ctx, service+"UndeleteUser", "undelete", p.users.UndeleteUser, &usersv1.UndeleteUserRequest{UserId: id, RequestId: p.uuid("undelete")})
	const events = 7 // two users, an update, disabled, enabled, deleted, undeleted
	for range events {
		var m *usersv1.WatchUsersResponse
		if m, err = nextThat(feed, err, func(m *usersv1.WatchUsersResponse) bool { return m.GetEvent() != nil }); err == nil {
			seen = append(seen, m)
		}
	}
	p.step(serverStream, service+"WatchUsers", "what happened to the users", codes.OK, err, seen...)
	stream, err := p.users.StreamUsers(ctx, &usersv1.StreamUsersRequest{Filter: `labels.part = "profiles"`})
	answers, err := all(stream, err)
	if err == nil && len(answers) != 2 {
		err = fmt.Errorf("%d users, not 2", len(answers))
	}
	p.step(serverStream, service+"StreamUsers", "all of them", codes.OK, err, answers...)
	data, err := p.users.ExportUserData(ctx, &usersv1.ExportUserDataRequest{UserId: id})
	answers, err = all(data, err)
	if err == nil && len(answers) < 2 {
		err = errors.New("no user and events")
	}
	p.step(serverStream, service+"ExportUserData", "everything of one", codes.OK, err, answers...)
	ok(p, ctx, service+"EraseUser", "erase", p.users.EraseUser, &usersv1.EraseUserRequest{UserId: p.uuid("dan"), RequestId: p.uuid("erase")})
}

// imports makes users over a client stream; one of them cannot be.
func (p *probe) imports(ctx context.Context) {
	const method = "users.v1.UserService/CreateUsers"
	stream, err := p.users.CreateUsers(ctx)
	for _, name := range []string{"erin", "frank", "erin", "grace"} {
		if err != nil {
			break
		}
		err = stream.Send(&usersv1.CreateUsersRequest{User: withFuture(&usersv1.CreateUserRequest{
			UserId: p.uuid("import " + name), Email: p.email(name), DisplayName: name, Labels: map[string]string{"part": "import"},
			RequestId: p.uuid(fmt.Sprintf("import %s %d", name, len(name))),
		})})
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the status comes by receiving
		p.step(clientStream, method, "an import", codes.OK, err)
		return
	}
	resp, err := stream.CloseAndRecv()
	if err == nil && resp.GetCreatedCount()+resp.GetFailedCount() == 0 {
		err = errors.New("it counts nobody")
	}
	p.step(clientStream, method, "an import", codes.OK, err, resp)
	again, err := p.users.CreateUsers(ctx)
	if err == nil {
		err = again.Send(&usersv1.CreateUsersRequest{User: &usersv1.CreateUserRequest{Email: p.email("ada"), DisplayName: "Ada", RequestId: p.uuid("import ada")}})
	}
	if err == nil {
		resp, err = again.CloseAndRecv()
	}
	if err == nil && len(resp.GetFailures()) != 1 {
		err = fmt.Errorf("%d failures, not 1", len(resp.GetFailures()))
	}
	p.step(clientStream, method, "an import with somebody whose email is taken", codes.OK, err, resp)
}

// ends ends the session, which is the last thing that needs it.
func (p *probe) ends(ctx context.Context, me person) {
	const service = "auth.v1.SessionService/"
	ok(p, as(ctx, me.token), service+"ChangePassword", "another password", p.sessions.ChangePassword, &authv1.ChangePasswordRequest{
		UserId: me.id, CurrentPassword: me.password, NewPassword: "another " + me.password, RequestId: p.uuid("change password"),
	})
	ok(p, ctx, service+"SignOut", "she signs out", p.sessions.SignOut, &authv1.SignOutRequest{RefreshToken: me.refresh})
}
