package server

import (
	"context"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// PartStatus returns the status that tells of what became of one message m of a stream that goes on: what a call that
// ended with err would have ended with, with the id of the request, without what is internal and without the secrets of
// m. domain is that of err where it has none. Outside of a call it is grpcfault.Status.
func PartStatus(ctx context.Context, m proto.Message, err error, domain string) *spb.Status {
	c := callFrom(ctx)
	if c == nil || err == nil {
		return grpcfault.Status(err, domain)
	}
	return conceal(partCleaner(c, m), grpcfault.Status(err, domain, &errdetails.RequestInfo{RequestId: c.RequestID}))
}

// PartText returns what a log may say of something that is about one message m of a stream, an error or the value of a
// panic: its text without the secrets of m, and of a message no more than its name.
func PartText(ctx context.Context, m proto.Message, value any) string {
	text := panicText(value)
	c := callFrom(ctx)
	if c == nil {
		return text
	}
	return partCleaner(c, m)(text)
}

func partCleaner(c *call, m proto.Message) func(string) string {
	return cleanerOf(func() []string { return secretsOf(c, m) })
}

func panicText(value any) string {
	if m, ok := value.(proto.Message); ok {
		return "a " + string(m.ProtoReflect().Descriptor().FullName()) // its text would have every field
	}
	return fmt.Sprint(value)
}
