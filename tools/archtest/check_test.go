package archtest

import (
	"slices"
	"strings"
	"testing"
)

// tree makes a graph from lines "package: import import test: import". A line that begins with `std `
// is a package of the standard library; what stands after `test:` is imported by the tests.
func tree(lines ...string) graph {
	g := graph{}
	for _, line := range lines {
		from, to, _ := strings.Cut(line, ":")
		imports, tests, _ := strings.Cut(to, "test:")
		name, standard := strings.CutPrefix(from, "std ")
		g[full(name)] = pkg{imports: fullAll(imports), testImports: fullAll(tests), standard: standard}
	}
	return g
}

func fullAll(list string) []string {
	var paths []string
	for _, path := range strings.Fields(list) {
		paths = append(paths, full(path))
	}
	return paths
}

func full(path string) string {
	if pattern(path).ours() {
		return prefix + path
	}
	return path
}

func TestCheck(t *testing.T) {
	domain := []ban{{from: []pattern{"services/users/internal/users/..."}, never: []pattern{"google.golang.org/grpc/...", "database/sql"}, why: "the domain does not know how it is reached"}}
	apart := []ban{{from: []pattern{"services/users/..."}, never: []pattern{"services/...", "!services/users/..."}, tests: true, why: "services meet only through the contract"}}
	store := []limit{{from: []pattern{"services/users/internal/*store"}, ours: []pattern{"kit/sqldb"}, others: []pattern{"modernc.org/..."}, why: "a store speaks the language of the domain"}}

	for _, row := range []struct {
		name   string
		tree   graph
		limits []limit
		bans   []ban
		want   []string // chains, shortened
	}{
		{
			name: "a tree that keeps the rules has no violation",
			tree: tree("services/users/internal/users: kit/fault std/errors", "kit/fault:"),
			bans: domain,
		},
		{
			name: "a banned package that is imported directly is found",
			tree: tree("services/users/internal/users: google.golang.org/grpc/codes", "google.golang.org/grpc/codes:"),
			bans: domain,
			want: []string{"services/users/internal/users > google.golang.org/grpc/codes"},
		},
		{
			name: "a banned package behind others is found, and the chain says through which",
			tree: tree("services/users/internal/users: kit/fault", "kit/fault: example.com/pretty", "example.com/pretty: database/sql", "std database/sql:"),
			bans: domain,
			want: []string{"services/users/internal/users > kit/fault > example.com/pretty > database/sql"},
		},
		{
			name: "of several chains the shortest is shown, once",
			tree: tree("services/users/internal/users: kit/a kit/b", "kit/a: kit/c", "kit/c: database/sql", "kit/b: database/sql", "std database/sql:"),
			bans: domain,
			want: []string{"services/users/internal/users > kit/b > database/sql"},
		},
		{
			name: "packages that import each other end the search",
			tree: tree("services/users/internal/users: kit/a", "kit/a: kit/b", "kit/b: kit/a"),
			bans: domain,
		},
		{
			name: "a package next to a banned one with the same beginning is no violation",
			tree: tree("services/users/internal/users: google.golang.org/grpcish database/sqlish", "google.golang.org/grpcish:", "database/sqlish:"),
			bans: domain,
		},
		{
			name: "a ban on all but its own does not hit its own",
			tree: tree("services/users/app: services/users/internal/users", "services/users/internal/users:"),
			bans: apart,
		},
		{
			name: "a test's import counts where the ban says so",
			tree: tree("services/users/app: test: services/auth/app", "services/auth/app:"),
			bans: apart,
			want: []string{"services/users/app > services/auth/app"},
		},
		{
			name: "a test's import does not count where the ban does not say so",
			tree: tree("services/users/internal/users: test: database/sql", "std database/sql:"),
			bans: domain,
		},
		{
			name:   "a limit lets through what it names and the standard library",
			tree:   tree("services/users/internal/sqlstore: kit/sqldb modernc.org/sqlite context", "kit/sqldb:", "modernc.org/sqlite:", "std context:"),
			limits: store,
		},
		{
			name:   "a limit stops packages of ours and of others that it does not name",
			tree:   tree("services/users/internal/sqlstore: kit/server example.com/orm", "kit/server:", "example.com/orm:"),
			limits: store,
			want:   []string{"services/users/internal/sqlstore > example.com/orm", "services/users/internal/sqlstore > kit/server"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			for _, v := range check(row.tree, row.limits, row.bans) {
				if v.why == "" {
					t.Errorf("%s carries no reason", v)
				}
				got = append(got, strings.ReplaceAll(strings.Join(v.chain, " > "), prefix, ""))
			}
			slices.Sort(got)
			if !slices.Equal(got, row.want) {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}

func TestAViolationPrintsItsChainAndItsReason(t *testing.T) {
	v := violation{[]string{prefix + "services/users/internal/users", prefix + "kit/fault", "google.golang.org/grpc"}, "the domain does not know how it is reached"}
	want := "services/users/internal/users\n\t→ kit/fault\n\t→ google.golang.org/grpc\n\tthe domain does not know how it is reached"
	if v.String() != want {
		t.Errorf("got\n%s\nwant\n%s", v, want)
	}
}

func TestRulesThatHaveGoneBlindAreNamed(t *testing.T) {
	g := tree("kit/fault:", "kit/server: google.golang.org/grpc", "google.golang.org/grpc:", "tools/lonely:")
	all := []limit{{from: []pattern{"kit/..."}, ours: []pattern{"kit/..."}, others: anyPackage(), why: "kit"}}
	bans := []ban{{from: []pattern{"kit/fault"}, never: []pattern{"google.golang.org/grpc/...", "example.com/gone"}, why: "ban"}}

	if got, want := dead(g, all, bans), []string{"package tools/lonely stands in no room: give it one in rules.go"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, row := range []struct {
		name string
		ban  ban
		want string
	}{
		{"a room that no longer exists", ban{from: []pattern{"kit/old/..."}, never: []pattern{"kit/..."}, why: "w"}, "pattern kit/old/... matches no package"},
		{"a banned package of ours that no longer exists", ban{from: []pattern{"kit/..."}, never: []pattern{"services/orders/..."}, why: "w"}, "pattern services/orders/... matches no package"},
		{"an exception that no longer exists", ban{from: []pattern{"kit/...", "!kit/old"}, never: []pattern{"tools/..."}, why: "w"}, "pattern kit/old matches no package"},
		{"a room that its exceptions leave empty", ban{from: []pattern{"kit/fault", "!kit/..."}, never: []pattern{"tools/..."}, why: "w"}, "the room [kit/fault !kit/...] is empty"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := dead(g, all, []ban{row.ban}); !slices.Contains(got, row.want) {
				t.Errorf("got %q, want it to name %q", got, row.want)
			}
		})
	}
}

func TestExpandMakesOneRulePerService(t *testing.T) {
	limits, bans := expand(
		[]limit{{from: []pattern{"services/{service}/app"}, ours: []pattern{"services/{service}/..."}, why: "w"}, {from: []pattern{"kit/..."}, why: "w"}},
		[]ban{{from: []pattern{"services/{service}/..."}, never: []pattern{"services/...", "!services/{service}/..."}, tests: true, why: "w"}},
		[]string{"auth", "users"},
	)
	if len(limits) != 3 || limits[1].from[0] != "services/users/app" || limits[1].ours[0] != "services/users/..." {
		t.Errorf("limits: %v", limits)
	}
	if len(bans) != 2 || bans[0].never[1] != "!services/auth/..." || !bans[1].tests {
		t.Errorf("bans: %v", bans)
	}
}
