package skew

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// breakage is a break of the contract that is made on purpose, and where the lab must see it.
type breakage struct {
	name         string
	file, within string // the file of the contract, and the message or enum, as it is declared there
	field        *regexp.Regexp
	by           string // what the match becomes
	kind, method string // of the calls that must fail
}

// breakages are one of each kind of call, and one of an enum. None stands in the way of another, nor of the code of the
// services.
func breakages() []breakage {
	const (
		auth, users     = "proto/auth/v1/auth_service.proto", "proto/users/v1/user_service.proto"
		user            = "proto/users/v1/user.proto"
		payments, watch = "proto/payments/v1/payment_service.proto", "proto/payments/v1/transaction.proto"
		ledger          = "proto/payments/v1/ledger_service.proto"
	)
	number := func(field string) *regexp.Regexp { return regexp.MustCompile(`(?m)^(\s+\w+ ` + field + ` = )(\d+)`) }
	return []breakage{
		{
			"a field of a request has another number", auth, "message ValidateUserRequest", number("password"), "${1}20",
			"unary", "auth.v1.AuthService/ValidateUser",
		}, {
			"two values of an enum change places", user, "enum UserState",
			regexp.MustCompile(`(?s)(USER_STATE_DISABLED = )2(.*USER_STATE_DELETED = )3`), "${1}3${2}2",
			"unary", "users.v1.UserService/DisableUser",
		}, {
			"a field of a stream of the server's has another number", watch, "message Transaction", number("amount_cents"), "${1}40",
			"server stream", "payments.v1.PaymentService/WatchTransactions",
		}, {
			"a field of the answer to a client's stream has another number", users, "message CreateUsersResponse", number("created_count"), "${1}10",
			"client stream", "users.v1.UserService/CreateUsers",
		}, {
			"a field of a stream both ways has another number", payments, "message ProcessChargesResponse", number("replayed"), "${1}40",
			"both ways", "payments.v1.PaymentService/ProcessCharges",
		}, {
			"a method has another path", ledger, "service LedgerService", regexp.MustCompile(`"/v1/ledger/trialBalance"`), `"/v1/ledger/balances"`,
			"REST", "payments.v1.LedgerService/GetTrialBalance",
		},
	}
}

// control breaks the contract in a scratch copy of the working tree, generates and builds it as the real one, and has
// the client of the working tree call that server: the lab must see each break, at the call where it is.
func (l *lab) control(ctx context.Context) (figures []figure.Figure, err error) {
	commit, err := l.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("copy the working tree: %w", err)
	}
	broken := &version{name: "broken", tree: filepath.Join(l.dir, "broken")}
	remove, err := checkout(ctx, l.new.tree, commit, broken.tree)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	for _, b := range breakages() {
		if err := b.make(broken.tree); err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
	}
	if _, err := output(ctx, broken.tree, "go", "tool", "buf", "generate"); err != nil {
		return nil, err
	}
	if err := migrate(broken.tree); err != nil {
		return nil, err
	}
	if err := broken.build(ctx, l.new.tree, l.dir); err != nil {
		return nil, err
	}
	own, across := &pairing{client: broken, server: broken}, &pairing{client: l.new, server: broken}
	for _, p := range []*pairing{own, across} {
		if err := l.converse(ctx, p); err != nil {
			return nil, err
		}
		p.judge(l.out)
	}
	across.misread(own)
	rows, caught := [][]string{{"break", "seen by", "as"}}, 0
	for _, b := range breakages() {
		seen := "NOT SEEN"
		for _, f := range across.failures {
			if f.kind == b.kind && f.method == b.method {
				caught, seen = caught+1, f.what
				break
			}
		}
		rows = append(rows, []string{b.name, b.kind + " " + b.method, seen})
	}
	for _, f := range own.failures { // a broken contract whose client is as broken works, but for paths, which clients have by heart
		if slices.ContainsFunc(breakages(), func(b breakage) bool { return b.kind == "REST" && f.kind == b.kind && f.method == b.method }) {
			continue
		}
		l.out.Line("FAILED the control itself: %s %s, %s: %s", f.kind, f.method, f.step, f.what)
		caught = 0
	}
	l.out.Table("breaks made on purpose", rows)
	refused, err := l.refusal(ctx, broken)
	if err != nil {
		return nil, err
	}
	return []figure.Figure{count("skew.control_caught", caught), count("skew.downgrades_refused", refused)}, nil
}

// migrate adds to a tree migrations that no other has: one of users, and one of payments.
func migrate(tree string) error {
	for _, service := range []string{"users", "payments"} {
		for _, engine := range []string{"sqlite", "postgres"} {
			path := filepath.Join(tree, "services", service, "internal", "sqlstore", "migrations", engine, "90000_skew.sql")
			if err := os.WriteFile(path, []byte("-- +goose Up\nCREATE TABLE skew (id BIGINT);\n"), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusal puts the server of the working tree on data that a server with more migrations has written, and returns 1 if
// it does not take it, says why, and leaves it so that the other goes on with it.
func (l *lab) refusal(ctx context.Context, migrated *version) (int, error) {
	dir, err := os.MkdirTemp(l.dir, "refusal-")
	if err != nil {
		return 0, err
	}
	h := &history{lab: l, dir: dir, clients: []*version{migrated}, events: map[string][]written{}}
	if err := h.turn(ctx, migrated, "one"); err != nil {
		return 0, err
	}
	if err := h.refused(ctx, l.new); err != nil {
		return 0, err
	}
	if err := h.turn(ctx, migrated, "two"); err != nil {
		return 0, err
	}
	for _, w := range h.wrong {
		l.out.Line("FAILED a downgrade: %s", w)
	}
	if len(h.wrong) > 0 {
		return 0, nil
	}
	return 1, nil
}

// make edits the contract of a tree.
func (b breakage) make(tree string) error {
	path := filepath.Join(tree, b.file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, declared, ok := strings.Cut(string(text), b.within+" {")
	if !ok {
		return fmt.Errorf("%s has no %s", b.file, b.within)
	}
	body, after, ok := strings.Cut(declared, "\n}\n")
	if !ok || !b.field.MatchString(body) {
		return fmt.Errorf("%s of %s is not as this control knows it: change the control with it", b.within, b.file)
	}
	changed := before + b.within + " {" + b.field.ReplaceAllString(body, b.by) + "\n}\n" + after
	return os.WriteFile(path, []byte(changed), 0o644)
}

// snapshot makes a commit of the working tree as it is, changes that are not committed among it, on no branch.
func (l *lab) snapshot(ctx context.Context) (string, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = l.new.tree
		cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+filepath.Join(l.dir, "index"),
			"GIT_AUTHOR_NAME=skew", "GIT_AUTHOR_EMAIL=skew@localhost", "GIT_COMMITTER_NAME=skew", "GIT_COMMITTER_EMAIL=skew@localhost")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w\n%s", args[0], err, stderr.String())
		}
		return strings.TrimSpace(string(out)), nil
	}
	for _, args := range [][]string{{"read-tree", "HEAD"}, {"add", "--all"}} {
		if _, err := git(args...); err != nil {
			return "", err
		}
	}
	tree, err := git("write-tree")
	if err != nil {
		return "", err
	}
	return git("commit-tree", tree, "-p", "HEAD", "-m", "the working tree, for a scratch copy")
}
