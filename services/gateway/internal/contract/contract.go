// Package contract is the contract as the edge sees it: which methods there are, which service stands behind each, and
// which of them a caller of the edge can use at all. It is read from the descriptors of the generated code; a method
// without a policy stops the start, here as in the service itself.
package contract

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/concordat-dev/concordat/gen/go/auth/v1"     // descriptors
	_ "github.com/concordat-dev/concordat/gen/go/payments/v1" // descriptors
	_ "github.com/concordat-dev/concordat/gen/go/users/v1"    // descriptors
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/policy"
)

// The services behind the edge, by the names in their certificates.
const (
	Auth     = "auth"
	Payments = "payments"
	Users    = "users"
)

// packages says which service serves which package of the contract.
func packages() map[string]protoreflect.FullName {
	return map[string]protoreflect.FullName{Auth: "auth.v1", Payments: "payments.v1", Users: "users.v1"}
}

// Upstream is a service behind the edge.
type Upstream struct {
	// Name is the name in its certificate.
	Name string
	// Services are what it serves of the contract, sorted by name.
	Services []protoreflect.ServiceDescriptor
}

// Method is a method of the contract.
type Method struct {
	*policy.Method
	// Upstream is the Name of the service that serves it.
	Upstream string
	// Descriptor is its declaration.
	Descriptor protoreflect.MethodDescriptor
}

// Open reports whether some caller of the edge can use the method: it is for everybody or for users, and lets the edge
// in. A method that is not open is forwarded all the same, and refused by its service.
func (m *Method) Open() bool {
	return (m.Public || m.User) && (len(m.Callers) == 0 || slices.Contains(m.Callers, kit.Edge))
}

// Streams reports whether the method has more than one message in some direction.
func (m *Method) Streams() bool { return m.ClientStream || m.ServerStream }

// Contract is all that the edge offers. It does not change.
type Contract struct {
	upstreams []Upstream
	methods   map[string]*Method
}

// Load reads the contract. It fails where a method has no policy, or one that contradicts itself.
func Load() (*Contract, error) {
	c := &Contract{methods: make(map[string]*Method)}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(packages())) {
		u := Upstream{Name: name, Services: servicesOf(packages()[name])}
		table, err := policy.Compile(u.Services...)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if len(table) == 0 {
			problems = append(problems, fmt.Errorf("package %s declares no method", packages()[name]))
		}
		for _, s := range u.Services {
			for i := range s.Methods().Len() {
				d := s.Methods().Get(i)
				fullName := fmt.Sprintf("/%s/%s", s.FullName(), d.Name())
				c.methods[fullName] = &Method{Method: table[fullName], Upstream: name, Descriptor: d}
			}
		}
		c.upstreams = append(c.upstreams, u)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("read the policies of the contract: %w", err)
	}
	return c, nil
}

func servicesOf(pkg protoreflect.FullName) []protoreflect.ServiceDescriptor {
	var list []protoreflect.ServiceDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			list = append(list, f.Services().Get(i))
		}
		return true
	})
	slices.SortFunc(list, func(a, b protoreflect.ServiceDescriptor) int {
		return cmp.Compare(a.FullName(), b.FullName())
	})
	return list
}

// Upstreams returns the services behind the edge, sorted by name.
func (c *Contract) Upstreams() []Upstream { return slices.Clone(c.upstreams) }

// Method returns the method of that full name ("/payments.v1.PaymentService/Charge"), nil where there is none.
func (c *Contract) Method(fullName string) *Method { return c.methods[fullName] }

// Methods returns all methods, sorted by full name.
func (c *Contract) Methods() []*Method {
	list := make([]*Method, 0, len(c.methods))
	for _, name := range slices.Sorted(maps.Keys(c.methods)) {
		list = append(list, c.methods[name])
	}
	return list
}

// QueryVerbs returns the HTTP verbs of which some REST route takes fields of its request from the query. Where a route takes
// the whole message from its body there is nothing for a query to say (google.api.http).
func (c *Contract) QueryVerbs() map[string]bool {
	verbs := make(map[string]bool)
	for _, m := range c.methods {
		rule, _ := proto.GetExtension(m.Descriptor.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			if r.GetBody() != "*" {
				verbs[verb(r)] = true
			}
		}
	}
	return verbs
}

func verb(r *annotations.HttpRule) string {
	switch r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return http.MethodGet
	case *annotations.HttpRule_Put:
		return http.MethodPut
	case *annotations.HttpRule_Post:
		return http.MethodPost
	case *annotations.HttpRule_Delete:
		return http.MethodDelete
	case *annotations.HttpRule_Patch:
		return http.MethodPatch
	default:
		return r.GetCustom().GetKind()
	}
}

// Scopes returns the scopes that access tokens can carry, as far as some method asks for them, sorted.
func (c *Contract) Scopes() []string {
	set := make(map[string]struct{})
	for _, m := range c.methods {
		for _, s := range m.Scopes {
			set[s] = struct{}{}
		}
		if m.OrScope != "" {
			set[m.OrScope] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(set))
}
