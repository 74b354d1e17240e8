package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/server"
)

// The services behind the edge, small and in memory. Their contracts, and the path in front of them, are the real ones.

var (
	errPaymentNotFound = fault.New(fault.NotFound, "PAYMENT_NOT_FOUND", "no such payment")
	errBusy            = fault.New(fault.Unavailable, "STORAGE_BUSY", "the store is busy").WithDomain(fault.Domain)
	errKeyReused       = fault.New(fault.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", "the key was used for another charge")
	errWait            = fault.New(fault.Aborted, "SIGN_UP_IN_PROGRESS", "a sign-up is under way").WithRetryAfter(1500 * time.Millisecond)
)

// sessions is auth.v1.
type sessions struct {
	authv1.UnimplementedSessionServiceServer
	authv1.UnimplementedKeyServiceServer
	authv1.UnimplementedAuthServiceServer
	authv1.UnimplementedAdminServiceServer
	harness *kittest.Harness

	mu       sync.Mutex
	accounts map[string]*authv1.Account // by email
	seen     []identity.Caller
	requests []*authv1.SignUpRequest
	locked   []*authv1.LockUserRequest
}

func (s *sessions) SignUp(ctx context.Context, req *authv1.SignUpRequest) (*authv1.SignUpResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, identity.From(ctx))
	s.requests = append(s.requests, proto.CloneOf(req))
	if req.GetEmail() == "wait@example.com" {
		return nil, errWait
	}
	a := s.accounts[req.GetEmail()]
	if a == nil {
		a = &authv1.Account{
			UserId: fmt.Sprintf("0199a3c0-0000-7000-8000-%012d", len(s.accounts)+1), Email: req.GetEmail(),
			Role: authv1.Role_ROLE_MEMBER, State: authv1.AccountState_ACCOUNT_STATE_ACTIVE, CreatedAt: timestamppb.Now(),
		}
		s.accounts[req.GetEmail()] = a
	}
	return &authv1.SignUpResponse{Account: a}, nil
}

func (s *sessions) SignIn(_ context.Context, req *authv1.SignInRequest) (*authv1.SignInResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[req.GetEmail()]
	if a == nil {
		return nil, fault.New(fault.Unauthenticated, "INVALID_CREDENTIALS", "email and password do not belong together")
	}
	return &authv1.SignInResponse{Account: a, Tokens: &authv1.SessionTokens{
		AccessToken: s.harness.Token(a.GetUserId(), "payments.read", "payments.write"),
	}}, nil
}

func (s *sessions) LockUser(_ context.Context, req *authv1.LockUserRequest) (*authv1.LockUserResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = append(s.locked, proto.CloneOf(req))
	return &authv1.LockUserResponse{Account: &authv1.Account{UserId: req.GetUserId()}}, nil
}

func (s *sessions) GetUser(context.Context, *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	return &authv1.GetUserResponse{Active: true}, nil
}

func (s *sessions) GetJwks(ctx context.Context, _ *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	keys, err := s.harness.Keys(ctx)
	if err != nil {
		return nil, err
	}
	resp := &authv1.GetJwksResponse{}
	for _, k := range keys {
		resp.Keys = append(resp.Keys, &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", X: k.X(), Kid: k.ID, Alg: "EdDSA", Use: "sig"})
	}
	return resp, nil
}

func (s *sessions) register(r grpc.ServiceRegistrar) {
	authv1.RegisterSessionServiceServer(r, s)
	authv1.RegisterKeyServiceServer(r, s)
	authv1.RegisterAuthServiceServer(r, s)
	authv1.RegisterAdminServiceServer(r, s)
}

// profiles is users.v1.
type profiles struct {
	usersv1.UnimplementedUserServiceServer

	mu    sync.Mutex
	users []*usersv1.User
	last  *usersv1.GetUserRequest
}

func (p *profiles) GetUser(_ context.Context, req *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = proto.CloneOf(req)
	resp := &usersv1.GetUserResponse{User: &usersv1.User{UserId: req.GetUserId()}}
	resp.User.ProtoReflect().SetUnknown(req.ProtoReflect().GetUnknown())
	return resp, nil
}

func (p *profiles) CreateUsers(stream grpc.ClientStreamingServer[usersv1.CreateUsersRequest, usersv1.CreateUsersResponse]) error {
	resp := &usersv1.CreateUsersResponse{}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(resp)
		}
		if err != nil {
			return err
		}
		if err := server.Validate(stream.Context(), req.GetUser()); err != nil {
			resp.Failures = append(resp.Failures, &usersv1.CreateUsersFailure{
				Index: resp.GetCreatedCount() + resp.GetFailedCount(), Status: grpcfault.Status(err, "users.v1"),
			})
			resp.FailedCount++
			continue
		}
		p.mu.Lock()
		p.users = append(p.users, &usersv1.User{UserId: req.GetUser().GetUserId(), Email: req.GetUser().GetEmail()})
		p.mu.Unlock()
		resp.CreatedCount++
	}
}

func (p *profiles) StreamUsers(_ *usersv1.StreamUsersRequest, stream grpc.ServerStreamingServer[usersv1.StreamUsersResponse]) error {
	p.mu.Lock()
	all := slices.Clone(p.users)
	p.mu.Unlock()
	for _, u := range all {
		if err := stream.Send(&usersv1.StreamUsersResponse{User: u}); err != nil {
			return err
		}
	}
	return nil
}

// money is payments.v1.
type money struct {
	paymentsv1.UnimplementedPaymentServiceServer
	newID func() string

	mu       sync.Mutex
	payments []*paymentsv1.Payment
	byKey    map[string]*paymentsv1.Payment
	changed  chan struct{} // closed and replaced with each payment
	headers  metadata.MD   // of the last charge
	deadline time.Duration // of the last charge
	address  string        // the caller's address, at the last charge
	failing  int           // how many attempts of each charge fail
	attempts map[string]int
}

func (m *money) charge(owner string, req *paymentsv1.ChargeRequest) (p *paymentsv1.Payment, replayed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := owner + " " + req.GetIdempotencyKey()
	if p := m.byKey[key]; p != nil {
		if p.GetAmountCents() != req.GetAmountCents() {
			return nil, false, errKeyReused
		}
		return p, true, nil
	}
	p = &paymentsv1.Payment{
		PaymentId: m.newID(), OrderId: req.GetOrderId(), CustomerId: req.GetCustomerId(), AmountCents: req.GetAmountCents(),
		Currency: req.GetCurrency(), State: paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED, CreatedAt: timestamppb.Now(),
		Metadata: maps.Clone(req.GetMetadata()),
	}
	m.byKey[key] = p
	m.payments = append(m.payments, p)
	close(m.changed)
	m.changed = make(chan struct{})
	return p, false, nil
}

func (m *money) Charge(ctx context.Context, req *paymentsv1.ChargeRequest) (*paymentsv1.ChargeResponse, error) {
	caller := identity.From(ctx)
	m.mu.Lock()
	m.attempts[req.GetIdempotencyKey()]++
	fails := m.attempts[req.GetIdempotencyKey()] <= m.failing
	m.mu.Unlock()
	if fails {
		return nil, errBusy
	}
	p, replayed, err := m.charge(caller.Key(), req)
	m.mu.Lock()
	m.headers, _ = metadata.FromIncomingContext(ctx)
	m.address = caller.Address
	if d, ok := ctx.Deadline(); ok {
		m.deadline = time.Until(d)
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if replayed {
		if err := grpc.SetHeader(ctx, metadata.Pairs("idempotency-replayed", "true")); err != nil {
			return nil, err
		}
	}
	return &paymentsv1.ChargeResponse{Payment: p}, nil
}

func (m *money) GetPayment(ctx context.Context, req *paymentsv1.GetPaymentRequest) (*paymentsv1.GetPaymentResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.payments {
		if p.GetPaymentId() == req.GetPaymentId() && p.GetCustomerId() == identity.From(ctx).UserID() {
			return &paymentsv1.GetPaymentResponse{Payment: p}, nil
		}
	}
	return nil, errPaymentNotFound
}

func (m *money) ListPayments(_ context.Context, req *paymentsv1.ListPaymentsRequest) (*paymentsv1.ListPaymentsResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := int(req.GetPageSize())
	if size == 0 {
		size = 50
	}
	offset := 0
	if t := req.GetPageToken(); t != "" {
		offset, _ = strconv.Atoi(t)
	}
	resp := &paymentsv1.ListPaymentsResponse{}
	for i, p := range m.payments {
		if p.GetCustomerId() != req.GetCustomerId() || i < offset {
			continue
		}
		if len(resp.GetPayments()) == size {
			resp.NextPageToken = strconv.Itoa(i)
			break
		}
		resp.Payments = append(resp.Payments, p)
	}
	return resp, nil
}

func (m *money) WatchTransactions(req *paymentsv1.WatchTransactionsRequest, stream grpc.ServerStreamingServer[paymentsv1.WatchTransactionsResponse]) error {
	m.mu.Lock()
	next := len(m.payments)
	if t := req.GetResumeToken(); t != "" {
		next, _ = strconv.Atoi(t)
	}
	m.mu.Unlock()
	if err := stream.Send(&paymentsv1.WatchTransactionsResponse{ResumeToken: strconv.Itoa(next)}); err != nil {
		return err
	}
	for {
		m.mu.Lock()
		changed := m.changed
		fresh := slices.Clone(m.payments[next:])
		m.mu.Unlock()
		for _, p := range fresh {
			next++
			err := stream.Send(&paymentsv1.WatchTransactionsResponse{ResumeToken: strconv.Itoa(next), Transaction: &paymentsv1.Transaction{
				Type: paymentsv1.TransactionType_TRANSACTION_TYPE_CHARGED, Payment: p, Timestamp: timestamppb.Now(),
			}})
			if err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case <-server.Draining(stream.Context()):
			return server.ErrDraining.With("resume_token", strconv.Itoa(next))
		}
	}
}

func (m *money) ProcessCharges(stream grpc.BidiStreamingServer[paymentsv1.ProcessChargesRequest, paymentsv1.ProcessChargesResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp := &paymentsv1.ProcessChargesResponse{IdempotencyKey: req.GetCharge().GetIdempotencyKey()}
		err = server.Validate(stream.Context(), req.GetCharge())
		if err == nil {
			var p *paymentsv1.Payment
			if p, resp.Replayed, err = m.charge(identity.From(stream.Context()).Key(), req.GetCharge()); err == nil {
				resp.Result = &paymentsv1.ProcessChargesResponse_Payment{Payment: p}
			}
		}
		if err != nil {
			resp.Result = &paymentsv1.ProcessChargesResponse_Error{Error: grpcfault.Status(err, "payments.v1")}
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}
