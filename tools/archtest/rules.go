package archtest

// services lists the services that own a domain, hold data and are reached through the contract.
// The gateway and standalone are rooms of their own.
func services() []string { return []string{"auth", "users", "payments"} }

// anyPackage and none are the two ends of what a limit allows.
func anyPackage() []pattern { return []pattern{anything} }
func none() []pattern       { return nil }

// limits names for each room all that it may import itself. Every package of ours stands in one.
func limits() []limit {
	return []limit{
		{
			from:   []pattern{"gen/..."},
			ours:   []pattern{"gen/..."},
			others: []pattern{"google.golang.org/protobuf/...", "google.golang.org/grpc/...", "google.golang.org/genproto/googleapis/api/...", "google.golang.org/genproto/googleapis/rpc/...", "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/..."},
			why:    "gen is what a client in another repository imports: it brings the runtimes of its messages and nothing else",
		},
		{
			from:   []pattern{"kit/fault/...", "kit/clock/..."},
			ours:   []pattern{"kit/fault/...", "kit/clock/..."},
			others: none(),
			why:    "domains stand on these two, so they stand on the standard library alone",
		},
		{
			from:   []pattern{"kit/...", "!kit/fault/...", "!kit/clock/..."},
			ours:   []pattern{"kit/...", "gen/go/policy/..."},
			others: anyPackage(),
			why:    "the kit serves every service and knows none: of the contract it knows the policy option",
		},
		{
			from:   []pattern{"services/{service}"},
			ours:   []pattern{"services/{service}/app/...", "kit/..."},
			others: anyPackage(),
			why:    "main only calls app, so that standalone runs the very same program",
		},
		{
			from:   []pattern{"services/{service}/app/..."},
			ours:   []pattern{"services/{service}/...", "gen/...", "kit/..."},
			others: anyPackage(),
			why:    "app wires one service: its own rooms, the kit, and clients of others made from the contract",
		},
		{
			from:   []pattern{"services/{service}/internal/...", "!services/{service}/internal/api/...", "!services/{service}/internal/*store/..."},
			ours:   []pattern{"services/{service}/internal/...", "!services/{service}/internal/api/...", "!services/{service}/internal/*store/...", "kit/fault/...", "kit/clock/..."},
			others: anyPackage(),
			why:    "the domain says what is true; how it is reached and where it is kept is the business of other rooms",
		},
		{
			from:   []pattern{"services/{service}/internal/api/..."},
			ours:   []pattern{"services/{service}/internal/...", "!services/{service}/internal/*store/...", "gen/...", "kit/..."},
			others: anyPackage(),
			why:    "a handler converts, calls the domain and converts: it never goes around the domain to the store",
		},
		{
			from:   []pattern{"services/{service}/internal/*store/..."},
			ours:   []pattern{"services/{service}/internal/...", "!services/{service}/internal/api/...", "kit/sqldb/...", "kit/eventlog/...", "kit/fault/...", "kit/clock/..."},
			others: anyPackage(),
			why:    "a store keeps what the domain gives it and speaks the language of the domain",
		},
		{
			from:   []pattern{"services/gateway/..."},
			ours:   []pattern{"services/gateway/...", "gen/...", "kit/..."},
			others: anyPackage(),
			why:    "the edge is a client of the contract like any other",
		},
		{
			from:   []pattern{"services/standalone/..."},
			ours:   []pattern{"services/standalone/...", "services/*/app/...", "gen/...", "kit/..."},
			others: anyPackage(),
			why:    "standalone starts what main of each service starts, through the same door",
		},
		{
			from:   []pattern{"tools/...", "proof/..."},
			ours:   anyPackage(),
			others: anyPackage(),
			why:    "tools and proofs may look at everything",
		},
	}
}

// bans names for each room what it must not reach, directly or through others.
func bans() []ban {
	return []ban{
		{
			from:  []pattern{"gen/..."},
			never: []pattern{"kit/...", "services/...", "tools/...", "proof/..."},
			tests: true,
			why:   "whoever imports the contract must not get our servers with it",
		},
		{
			from:  []pattern{"kit/..."},
			never: []pattern{"services/...", "gen/...", "!gen/go/policy/..."},
			tests: true,
			why:   "what every server needs must not know one of them, nor any domain's messages",
		},
		{
			from:  []pattern{"services/{service}/internal/...", "!services/{service}/internal/api/...", "!services/{service}/internal/*store/..."},
			never: []pattern{"google.golang.org/grpc/...", "gen/...", "database/sql/...", "github.com/jackc/pgx/...", "modernc.org/sqlite/...", "zombiezen.com/go/sqlite/..."},
			why:   "the domain does not know how it is reached or where it is kept",
		},
		{
			from:  []pattern{"services/{service}/internal/api/..."},
			never: []pattern{"services/{service}/internal/*store/..."},
			why:   "a handler that sees the store goes around the rules of the domain",
		},
		{
			from:  []pattern{"services/{service}/internal/*store/..."},
			never: []pattern{"google.golang.org/grpc/...", "gen/..."},
			why:   "what is on disk must not change because a message did",
		},
		{
			from:  []pattern{"services/{service}/..."},
			never: []pattern{"services/...", "!services/{service}/..."},
			tests: true,
			why:   "services meet only through the contract",
		},
		{
			from:  []pattern{"services/gateway/..."},
			never: []pattern{"services/...", "!services/gateway/..."},
			tests: true,
			why:   "the edge reaches services over the wire, where their policy is enforced",
		},
		{
			from:  []pattern{"gen/...", "kit/...", "services/..."},
			never: []pattern{"tools/...", "proof/..."},
			tests: true,
			why:   "what is shipped does not depend on what builds or measures it",
		},
	}
}
