package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// A service is a service of the contract.
type service struct {
	// name is its full name: "payments.v1.PaymentService".
	name string
	// server is who serves it: "payments".
	server  string
	methods []method
}

// A method is a method of the contract.
type method struct {
	service string // the full name of its service
	name    string
	streams bool
	// timeout is the deadline of a call, by its policy; for a stream, the bound of its life.
	timeout time.Duration
}

// policyOption is the option that makes a service one of ours.
const policyOption = "policy.v1.method"

// readContract compiles the schemas of the repository and returns the services whose methods have a policy, by name.
func readContract(ctx context.Context, root string) ([]service, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(filepath.Join(root, "proto")), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".proto") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for schemas: %w", err)
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		ImportPaths: []string{filepath.Join(root, "proto"), filepath.Join(root, "third_party")},
	})}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("compile the contract: %w", err)
	}
	// Options are read through the schemas that have just been compiled, not through those of some build.
	resolver := files.AsResolver()
	var services []service
	for _, f := range files {
		server, _, _ := strings.Cut(string(f.Package()), ".")
		for i := range f.Services().Len() {
			sd := f.Services().Get(i)
			s := service{name: string(sd.FullName()), server: server}
			for j := range sd.Methods().Len() {
				md := sd.Methods().Get(j)
				timeout, err := timeoutOf(md, resolver)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", md.FullName(), err)
				}
				s.methods = append(s.methods, method{
					service: s.name, name: string(md.Name()), timeout: timeout,
					streams: md.IsStreamingClient() || md.IsStreamingServer(),
				})
			}
			slices.SortFunc(s.methods, func(a, b method) int { return cmp.Compare(a.name, b.name) })
			services = append(services, s)
		}
	}
	slices.SortFunc(services, func(a, b service) int { return cmp.Compare(a.name, b.name) })
	return services, nil
}

// timeoutOf returns the timeout of a method's policy.
func timeoutOf(md protoreflect.MethodDescriptor, resolver extensions) (time.Duration, error) {
	raw, err := proto.Marshal(md.Options())
	if err != nil {
		return 0, err
	}
	opts := &descriptorpb.MethodOptions{}
	if err := (proto.UnmarshalOptions{Resolver: resolver}).Unmarshal(raw, opts); err != nil {
		return 0, err
	}
	var timeout time.Duration
	opts.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.FullName() != policyOption {
			return true
		}
		policy := v.Message()
		d := policy.Get(policy.Descriptor().Fields().ByName("timeout")).Message()
		fields := d.Descriptor().Fields()
		timeout = time.Duration(d.Get(fields.ByName("seconds")).Int())*time.Second + time.Duration(d.Get(fields.ByName("nanos")).Int())
		return false
	})
	if timeout <= 0 {
		return 0, fmt.Errorf("it has no timeout in its policy (option %s)", policyOption)
	}
	return timeout, nil
}

// extensions finds extensions, as proto.UnmarshalOptions asks for them.
type extensions interface {
	FindExtensionByName(field protoreflect.FullName) (protoreflect.ExtensionType, error)
	FindExtensionByNumber(message protoreflect.FullName, field protoreflect.FieldNumber) (protoreflect.ExtensionType, error)
}
