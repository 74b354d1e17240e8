package rules

import (
	"cmp"
	"fmt"
	"slices"

	"buf.build/go/bufplugin/descriptor"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The extensions that the rules read.
const (
	policyOption   protoreflect.FullName = "policy.v1.method"
	validateOption protoreflect.FullName = "buf.validate.field"
	httpOption     protoreflect.FullName = "google.api.http"
)

// policyNumber is the number of policy.v1.method. It tells an option whose schema the image lacks from none.
const policyNumber protoreflect.FieldNumber = 51000

// A Contract is what one image says. It is only read, so that rules may look at it side by side.
type Contract struct {
	ours     bool                             // whether it is one that the rules speak about
	files    []protoreflect.FileDescriptor    // what is checked, without imports, by path
	imported map[string]protoreflect.FullName // the packages of the imports, by path
	types    *dynamicpb.Types                 // every type of the image, imports included
	methods  []method                         // of services
}

// A method is an RPC with its options.
type method struct {
	protoreflect.MethodDescriptor
	options *descriptorpb.MethodOptions
	policy  record // nothing is set where there is none
	// foreign says that the method has a policy and the image has no schema to read it by.
	foreign bool
}

// hasPolicy reports whether there is a policy that can be judged.
func (m method) hasPolicy() bool { return m.policy.m != nil }

func newContract(files []descriptor.FileDescriptor) (*Contract, error) {
	c := &Contract{imported: map[string]protoreflect.FullName{}}
	registry := new(protoregistry.Files)
	for _, f := range files {
		fd := f.ProtoreflectFileDescriptor()
		if err := registry.RegisterFile(fd); err != nil {
			return nil, fmt.Errorf("%s: %w", fd.Path(), err)
		}
		if f.IsImport() {
			c.imported[fd.Path()] = fd.Package()
		} else {
			c.files = append(c.files, fd)
		}
	}
	slices.SortFunc(c.files, func(a, b protoreflect.FileDescriptor) int { return cmp.Compare(a.Path(), b.Path()) })
	c.types = dynamicpb.NewTypes(registry)
	if xt, err := c.types.FindExtensionByName(policyOption); err == nil {
		c.ours = xt.TypeDescriptor().ContainingMessage().FullName() == "google.protobuf.MethodOptions"
	}
	for _, s := range c.services() {
		for i := range s.Methods().Len() {
			m := method{MethodDescriptor: s.Methods().Get(i), options: new(descriptorpb.MethodOptions)}
			if err := c.decode(m.Options(), m.options); err != nil {
				return nil, fmt.Errorf("%s: %w", m.FullName(), err)
			}
			m.policy = c.option(m.options, policyOption)
			m.foreign = slices.Contains(unknown(m.options.ProtoReflect()), policyNumber)
			c.ours = c.ours || m.foreign
			c.methods = append(c.methods, m)
		}
	}
	return c, nil
}

// framework reports whether a service is one of grpc-go's own, which carry no options and for which servers have a
// fixed policy.
func framework(service protoreflect.FullName) bool {
	switch service {
	case "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection":
		return true
	}
	return false
}

// policies calls f with every method that has a policy.
func (c *Contract) policies(f func(method)) {
	for _, m := range c.methods {
		if m.hasPolicy() {
			f(m)
		}
	}
}

// services returns the services of the files, without those of the framework.
func (c *Contract) services() []protoreflect.ServiceDescriptor {
	var services []protoreflect.ServiceDescriptor
	for _, f := range c.files {
		for i := range f.Services().Len() {
			if s := f.Services().Get(i); !framework(s.FullName()) {
				services = append(services, s)
			}
		}
	}
	return services
}

// messages calls f with every message of the files, also those inside others, but not the entries of maps.
func (c *Contract) messages(f func(protoreflect.MessageDescriptor)) {
	var walk func(protoreflect.MessageDescriptors)
	walk = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			if md := messages.Get(i); !md.IsMapEntry() {
				f(md)
				walk(md.Messages())
			}
		}
	}
	for _, file := range c.files {
		walk(file.Messages())
	}
}

// enums calls f with every enum of the files, also those inside messages.
func (c *Contract) enums(f func(protoreflect.EnumDescriptor)) {
	each := func(enums protoreflect.EnumDescriptors) {
		for i := range enums.Len() {
			f(enums.Get(i))
		}
	}
	for _, file := range c.files {
		each(file.Enums())
	}
	c.messages(func(md protoreflect.MessageDescriptor) { each(md.Enums()) })
}

// isImported reports whether an element belongs to somebody else: its file is imported, and not checked.
func (c *Contract) isImported(d protoreflect.Descriptor) bool {
	_, ok := c.imported[d.ParentFile().Path()]
	return ok
}

// decode reads options again, by the types of the image. What the image has no type for becomes unknown fields of to.
func (c *Contract) decode(options, to proto.Message) error {
	// The plugin links some extensions of its own (protovalidate's), and may have decoded these by them.
	raw, err := proto.MarshalOptions{AllowPartial: true}.Marshal(options)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	if err := (proto.UnmarshalOptions{AllowPartial: true, Resolver: c.types}).Unmarshal(raw, to); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	return nil
}

// option returns an option that is a message. Nothing is set in it where the options do not have it.
func (c *Contract) option(options proto.Message, name protoreflect.FullName) record {
	xt, err := c.types.FindExtensionByName(name)
	if err != nil {
		return record{}
	}
	field := xt.TypeDescriptor()
	m := options.ProtoReflect()
	if field.Message() == nil || field.IsList() || field.ContainingMessage().FullName() != m.Descriptor().FullName() || !m.Has(field) {
		return record{}
	}
	return record{m.Get(field).Message()}
}

// fieldOptions returns the standard options of a field, and its protovalidate rules. Options that cannot be decoded say
// nothing here; OPTION_UNDERSTOOD reports them.
func (c *Contract) fieldOptions(fd protoreflect.FieldDescriptor) (*descriptorpb.FieldOptions, record) {
	options := new(descriptorpb.FieldOptions)
	if err := c.decode(fd.Options(), options); err != nil {
		return new(descriptorpb.FieldOptions), record{}
	}
	return options, c.option(options, validateOption)
}
