package server

import (
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // what clients may compress with; grpc-go answers in kind
)

// registrar registers services such that all their methods are one kind of thing: a stream that the server serves. On the
// wire a unary call is a stream with one message each way, and grpc-go lets a method be registered as what it is there.
type registrar struct {
	*grpc.Server
	server *Server
}

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	ours := *desc
	ours.Methods, ours.Streams = nil, nil
	add := func(d grpc.StreamDesc, body handler) {
		d.Handler = func(_ any, ss grpc.ServerStream) error { return r.server.serve(ss, body) }
		ours.Streams = append(ours.Streams, d)
	}
	for _, m := range desc.Methods {
		add(grpc.StreamDesc{StreamName: m.MethodName}, unary(impl, m.Handler))
	}
	for _, d := range desc.Streams {
		add(d, streaming(impl, d.Handler))
	}
	r.Server.RegisterService(&ours, impl)
}
