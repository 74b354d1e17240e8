package rules

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"buf.build/go/bufplugin/check"
	"buf.build/go/bufplugin/descriptor"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// Specs returns the rules that buf does not have as rules of a buf plugin, so that `buf breaking` and editors find what
// the review finds. Rules that only note something, and those that need to know who uses what, are left out. now is the
// clock by which sunsets are judged; the rules belong to the category.
func Specs(category string, now func() time.Time) []*check.RuleSpec {
	p := &plugin{now: now}
	var specs []*check.RuleSpec
	for _, rule := range All() {
		if rule.Buf || rule.Level == Note {
			continue
		}
		specs = append(specs, &check.RuleSpec{
			ID: rule.ID, CategoryIDs: []string{category}, Default: true, Type: check.RuleTypeBreaking,
			Purpose: fmt.Sprintf("Checks that it does not happen that %s.", rule.Purpose),
			Handler: check.RuleHandlerFunc(func(_ context.Context, out check.ResponseWriter, request check.Request) error {
				return p.handle(rule.ID, out, request)
			}),
		})
	}
	return specs
}

// A plugin compares the two contracts of a request once for all rules.
type plugin struct {
	now func() time.Time

	mu       sync.Mutex
	request  check.Request
	findings []*Finding
}

func (p *plugin) handle(rule string, out check.ResponseWriter, request check.Request) error {
	findings, err := p.find(request)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Rule != rule || f.Implied != "" {
			continue
		}
		options := []check.AddAnnotationOption{check.WithMessage(f.Text + ". " + f.WayOut)}
		if f.anchor != nil {
			options = append(options, check.WithFileNameAndSourcePath(f.anchor.At.Path, f.anchor.SourcePath()))
		}
		if was := f.change.Before; was != nil {
			options = append(options, check.WithAgainstFileNameAndSourcePath(was.At.Path, was.SourcePath()))
		}
		out.AddAnnotation(options...)
	}
	return nil
}

func (p *plugin) find(request check.Request) ([]*Finding, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.request == request {
		return p.findings, nil
	}
	if len(request.AgainstFileDescriptors()) == 0 {
		return nil, nil
	}
	before, err := image(request.AgainstFileDescriptors())
	if err != nil {
		return nil, fmt.Errorf("read the baseline: %w", err)
	}
	after, err := image(request.FileDescriptors())
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	p.request, p.findings = request, Check(before, after, schema.Compare(before, after), p.now())
	return p.findings, nil
}

func image(files []descriptor.FileDescriptor) (*schema.Image, error) {
	described := make([]*descriptorpb.FileDescriptorProto, len(files))
	for n, file := range files {
		described[n] = file.FileDescriptorProto()
	}
	return schema.New(described, func(file *descriptorpb.FileDescriptorProto) bool {
		return files[slices.Index(described, file)].IsImport()
	})
}
