package consumers

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// A symbol is something that generated code declares: a name of a package, or a member of one of its types.
type symbol struct{ pkg, name, member string }

// A target is what a symbol stands for in the contract.
type target struct {
	element string
	// member tells a member of a oneof from the message that holds it, and so on.
	kind Kind
}

// names are the symbols of the generated code of one contract.
type names struct {
	targets map[symbol]target
	// servers are the interfaces that servers implement, by symbol: the full name of the service.
	servers map[symbol]string
	// methods are the Go names of the methods of services: the full names of the methods.
	methods map[string]map[string]string
	// fields are the fields by their names in the contract and in JSON: full names.
	fields map[string][]string
	// named are the members of types by their Go names, once they were asked for.
	named map[string][]symbol
}

// members returns the members of generated types by their Go names.
func (n *names) members() map[string][]symbol {
	if n.named == nil {
		n.named = map[string][]symbol{}
		for at := range n.targets {
			if at.member != "" {
				n.named[at.member] = append(n.named[at.member], at)
			}
		}
	}
	return n.named
}

// newNames computes the symbols of a contract. packages are the .proto files of each Go package that exists; the package
// of another file is found by how its folder lies below the same root.
func newNames(image *schema.Image, packages map[string][]string) (*names, error) {
	place := places(packages)
	var mapping []string
	files := image.Descriptors()
	request := &pluginpb.CodeGeneratorRequest{}
	for _, file := range files {
		request.ProtoFile = append(request.ProtoFile, file)
		// The name of a package decides nothing here, and has to be the same for all of its files.
		mapping = append(mapping, "M"+file.GetName()+"="+place(file)+";p")
	}
	for _, file := range image.Files {
		request.FileToGenerate = append(request.FileToGenerate, file.Name)
	}
	request.Parameter = proto.String(strings.Join(mapping, ","))
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		return nil, fmt.Errorf("name the generated code: %w", err)
	}
	n := &names{targets: map[symbol]target{}, servers: map[symbol]string{}, methods: map[string]map[string]string{}, fields: map[string][]string{}}
	for _, file := range plugin.Files {
		if !file.Generate {
			continue
		}
		pkg := string(file.GoImportPath)
		for _, message := range file.Messages {
			n.message(pkg, message)
		}
		for _, enum := range file.Enums {
			n.enum(pkg, enum)
		}
		for _, extension := range file.Extensions {
			n.targets[symbol{pkg, extension.GoIdent.GoName, ""}] = target{string(extension.Desc.FullName()), Constant}
		}
		for _, service := range file.Services {
			n.service(pkg, service)
			// connect-go puts its code in a package of its own below that of the messages.
			for below := range packages {
				if strings.HasPrefix(below, pkg+"/") && strings.HasSuffix(below, "connect") {
					n.service(below, service)
				}
			}
		}
	}
	return n, nil
}

// places returns the Go package of each .proto file: that which was generated from it, else that of another file of its
// folder, else what the file itself says, else the folder below the root that the others share.
func places(packages map[string][]string) func(*descriptorpb.FileDescriptorProto) string {
	byFile, byFolder, root := map[string]string{}, map[string]string{}, ""
	for _, pkg := range sortedKeys(packages) {
		for _, file := range packages[pkg] {
			// The code of connect-go lies beside that of the messages and is no place for them.
			if strings.HasSuffix(pkg, "connect") {
				continue
			}
			byFile[file], byFolder[path.Dir(file)] = pkg, pkg
			if above, ok := strings.CutSuffix(pkg, "/"+path.Dir(file)); ok && root == "" {
				root = above
			}
		}
	}
	return func(described *descriptorpb.FileDescriptorProto) string {
		file := described.GetName()
		said, _, _ := strings.Cut(described.GetOptions().GetGoPackage(), ";")
		switch {
		case byFile[file] != "":
			return byFile[file]
		case byFolder[path.Dir(file)] != "":
			return byFolder[path.Dir(file)]
		case said != "":
			return said
		default:
			return path.Join("/", root, path.Dir(file))[1:]
		}
	}
}

func (n *names) message(pkg string, message *protogen.Message) {
	if message.Desc.IsMapEntry() {
		return
	}
	full := string(message.Desc.FullName())
	n.targets[symbol{pkg, message.GoIdent.GoName, ""}] = target{full, Constant}
	for _, field := range message.Fields {
		name := string(field.Desc.FullName())
		at := target{name, Reads}
		n.targets[symbol{pkg, message.GoIdent.GoName, field.GoName}] = at
		n.targets[symbol{pkg, message.GoIdent.GoName, "Get" + field.GoName}] = at
		n.targets[symbol{pkg, message.GoIdent.GoName, "Has" + field.GoName}] = at
		for _, writer := range []string{"Set", "Clear"} {
			n.targets[symbol{pkg, message.GoIdent.GoName, writer + field.GoName}] = target{name, Writes}
		}
		n.targets[symbol{pkg, message.GoIdent.GoName + "_builder", field.GoName}] = target{name, Literal}
		if field.Oneof != nil && !field.Oneof.Desc.IsSynthetic() {
			n.targets[symbol{pkg, field.GoIdent.GoName, ""}] = target{name, OneofCase}
			n.targets[symbol{pkg, field.GoIdent.GoName, field.GoName}] = at
		}
		for _, text := range []string{string(field.Desc.Name()), field.Desc.JSONName()} {
			if !slices.Contains(n.fields[text], name) {
				n.fields[text] = append(n.fields[text], name)
			}
		}
	}
	for _, oneof := range message.Oneofs {
		if oneof.Desc.IsSynthetic() {
			continue
		}
		at := target{string(oneof.Desc.FullName()), Reads}
		n.targets[symbol{pkg, message.GoIdent.GoName, oneof.GoName}] = at
		n.targets[symbol{pkg, message.GoIdent.GoName, "Get" + oneof.GoName}] = at
		n.targets[symbol{pkg, message.GoIdent.GoName, "Which" + oneof.GoName}] = at
	}
	for _, extension := range message.Extensions {
		n.targets[symbol{pkg, extension.GoIdent.GoName, ""}] = target{string(extension.Desc.FullName()), Constant}
	}
	for _, enum := range message.Enums {
		n.enum(pkg, enum)
	}
	for _, inner := range message.Messages {
		n.message(pkg, inner)
	}
}

func (n *names) enum(pkg string, enum *protogen.Enum) {
	full := string(enum.Desc.FullName())
	n.targets[symbol{pkg, enum.GoIdent.GoName, ""}] = target{full, Constant}
	for _, value := range enum.Values {
		n.targets[symbol{pkg, value.GoIdent.GoName, ""}] = target{full + "." + string(value.Desc.Name()), Constant}
	}
}

func (n *names) service(pkg string, service *protogen.Service) {
	full, name := string(service.Desc.FullName()), service.GoName
	at := target{full, Constant}
	for _, ident := range []string{name + "Client", "New" + name + "Client", name + "Server", "Register" + name + "Server", "Unimplemented" + name + "Server",
		"Unsafe" + name + "Server", name + "Handler", "New" + name + "Handler", "Unimplemented" + name + "Handler", name + "_ServiceDesc", name + "Name"} {
		n.targets[symbol{pkg, ident, ""}] = at
	}
	for _, ident := range []string{"Unimplemented" + name + "Server", "Unsafe" + name + "Server", "Unimplemented" + name + "Handler"} {
		n.servers[symbol{pkg, ident, ""}] = full
	}
	n.methods[full] = map[string]string{}
	for _, method := range service.Methods {
		element := string(method.Desc.FullName())
		n.methods[full][method.GoName] = element
		n.targets[symbol{pkg, name + "Client", method.GoName}] = target{element, Calls}
		n.targets[symbol{pkg, name + "Server", method.GoName}] = target{element, Calls}
		n.targets[symbol{pkg, name + "Handler", method.GoName}] = target{element, Calls}
		for _, ident := range []string{name + "_" + method.GoName + "_FullMethodName", name + "_" + method.GoName + "Client",
			name + "_" + method.GoName + "Server", name + method.GoName + "Procedure"} {
			n.targets[symbol{pkg, ident, ""}] = target{element, Constant}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
