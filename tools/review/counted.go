package review

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// told keeps the findings about what streams carry, of those that make something written before mean something else.
func told(found []*rules.Finding, before *schema.Image) []*rules.Finding {
	reach := before.Reach()
	return slices.DeleteFunc(found, func(f *rules.Finding) bool {
		was := f.Change().Before
		return was == nil || was.Kind == schema.Method || len(reach.Streamed(was)) == 0 ||
			f.Axes.Wire == rules.Safe && f.Axes.JSON == rules.Safe && f.Axes.Semantics == rules.Safe
	})
}

// hidden says why a finding that a rule of buf's name made does not count: the workspace does not ask for the rule, or
// tells buf to pass over the file. What buf itself reports always counts.
func (r *run) hidden(f *Finding, buf bool) string {
	if !f.Buf || buf {
		return ""
	}
	if !r.configured[f.Rule] {
		return "buf.yaml does not ask for " + f.Rule
	}
	// As buf does, look where the element stands now and where it stood.
	places := []place{{f.Path, f.Package}}
	if change := f.Change(); change != nil {
		for _, e := range []*schema.Element{change.Before, change.After} {
			if e != nil {
				places = append(places, place{r.disk.path(e.At.Path), e.Package})
			}
		}
	}
	for _, p := range places {
		if why := r.disk.passes(p, f.Rule, r.categories); why != "" {
			return why
		}
	}
	return ""
}

// A sighting is one finding against one baseline.
type sighting struct {
	baseline string
	// counted is set where it is not hidden there.
	counted bool
	// within are the fingerprints of the findings that include it, the outermost first.
	within []string
}

// sightings are all of them by fingerprint.
type sightings map[string][]sighting

func (s sightings) add(baseline string, f *rules.Finding, hidden string) {
	s[f.Fingerprint] = append(s[f.Fingerprint], sighting{baseline, hidden == "", f.Within()})
}

// includer returns the finding with which another one fails and is approved: one that includes it and that counts
// itself, against every baseline against which the other was found. Empty where against one of them there is none:
// what stands for nothing excuses nothing.
func (s sightings) includer(fingerprint string) string {
	first := ""
	for _, one := range s[fingerprint] {
		at := slices.IndexFunc(one.within, func(outer string) bool {
			return slices.ContainsFunc(s[outer], func(o sighting) bool { return o.baseline == one.baseline && o.counted })
		})
		if at < 0 {
			return ""
		}
		if first == "" {
			first = one.within[at]
		}
	}
	return first
}

// categories returns the rules of buf by category, each under the name that a rule of ours with the same findings has.
func (b Buf) categories(ctx context.Context) (map[string][]string, error) {
	return remember(b.kept, "categories", func() (map[string][]string, error) {
		out, err := repo.Output(ctx, b.Dir, b.Program, "config", "ls-breaking-rules", "--format", "json")
		if err != nil {
			return nil, fmt.Errorf("list the breaking rules of buf: %w", said(err))
		}
		byCategory := map[string][]string{}
		for printed := json.NewDecoder(strings.NewReader(out)); printed.More(); {
			var rule struct {
				ID         string   `json:"id"`
				Categories []string `json:"categories"`
			}
			if err := printed.Decode(&rule); err != nil {
				return nil, fmt.Errorf("list the breaking rules of buf: %w", err)
			}
			for _, category := range rule.Categories {
				byCategory[category] = append(byCategory[category], equivalent(rule.ID))
			}
		}
		return byCategory, nil
	})
}
