package forward

import (
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

// Reflection answers reflection (v1 and v1alpha) with what callers of the edge can use: a method that is for services
// alone is not in it, and neither is a service that has no other.
type Reflection struct {
	files    *protoregistry.Files
	services map[string]grpc.ServiceInfo
}

// NewReflection returns the Reflection of a contract.
func NewReflection(c *contract.Contract) (*Reflection, error) {
	r := &Reflection{files: new(protoregistry.Files), services: make(map[string]grpc.ServiceInfo)}
	open := make(map[protoreflect.FullName]bool)
	ours := make(map[protoreflect.FullName]bool)
	roots := []protoreflect.FileDescriptor{
		healthpb.File_grpc_health_v1_health_proto,
		reflectionpb.File_grpc_reflection_v1_reflection_proto,
		reflectionalphapb.File_grpc_reflection_v1alpha_reflection_proto,
		errdetails.File_google_rpc_error_details_proto, // so that callers can read the details of errors
	}
	own := len(roots)
	for _, m := range c.Methods() {
		service := m.Descriptor.Parent()
		ours[service.FullName()] = true
		open[m.Descriptor.FullName()] = m.Open()
		if m.Open() {
			r.services[string(service.FullName())] = grpc.ServiceInfo{}
		}
		roots = append(roots, m.Descriptor.ParentFile())
	}
	for _, f := range roots {
		if err := r.add(f, ours, open); err != nil {
			return nil, fmt.Errorf("describe %s for reflection: %w", f.Path(), err)
		}
	}
	for _, f := range roots[:own] {
		for i := range f.Services().Len() {
			r.services[string(f.Services().Get(i).FullName())] = grpc.ServiceInfo{}
		}
	}
	return r, nil
}

// add adds a file, after those that it imports, without the methods that are not open.
func (r *Reflection) add(f protoreflect.FileDescriptor, ours, open map[protoreflect.FullName]bool) error {
	if _, err := r.files.FindFileByPath(f.Path()); err == nil {
		return nil
	}
	for i := range f.Imports().Len() {
		if err := r.add(f.Imports().Get(i).FileDescriptor, ours, open); err != nil {
			return err
		}
	}
	p := protodesc.ToFileDescriptorProto(f)
	services := p.GetService()[:0:0]
	for _, s := range p.GetService() {
		name := f.Package().Append(protoreflect.Name(s.GetName()))
		if ours[name] {
			s = proto.CloneOf(s)
			s.Method = openMethods(name, s.GetMethod(), open)
			if len(s.GetMethod()) == 0 {
				continue
			}
		}
		services = append(services, s)
	}
	p.Service = services
	filtered, err := protodesc.NewFile(p, r.files)
	if err != nil {
		return err
	}
	return r.files.RegisterFile(filtered)
}

func openMethods(service protoreflect.FullName, methods []*descriptorpb.MethodDescriptorProto, open map[protoreflect.FullName]bool) []*descriptorpb.MethodDescriptorProto {
	var list []*descriptorpb.MethodDescriptorProto
	for _, m := range methods {
		if open[service.Append(protoreflect.Name(m.GetName()))] {
			list = append(list, m)
		}
	}
	return list
}

// Register adds the reflection services to a server.
func (r *Reflection) Register(s grpc.ServiceRegistrar) {
	opts := reflection.ServerOptions{Services: provider(r.services), DescriptorResolver: r.files}
	reflectionpb.RegisterServerReflectionServer(s, reflection.NewServerV1(opts))
	reflectionalphapb.RegisterServerReflectionServer(s, reflection.NewServer(opts))
}

type provider map[string]grpc.ServiceInfo

func (p provider) GetServiceInfo() map[string]grpc.ServiceInfo { return p }
