package sqldb

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// URL says where a PostgreSQL database is:
//
//	postgres://user:password@host:5432/database?sslmode=verify-full&sslrootcert=/etc/ssl/db.pem
//	postgres://user@host1:5432,host2:5432/database?target_session_attrs=read-write
//
// Its parameters are those of libpq; what it lacks is taken from libpq's environment (PGPASSWORD, PGSSLROOTCERT, …) and
// password file. Of several hosts the one is used that takes writes, and another is looked for when it no longer does. A
// pooler that gives out connections by transaction must keep prepared statements (PgBouncer: max_prepared_statements), or
// the URL says default_query_exec_mode=exec; and it carries no Listen.
//
// It holds a password, and prints as "[secret]".
type URL string

const hiddenURL = "[secret]"

// String returns "[secret]".
func (URL) String() string { return hiddenURL }

// Format prints "[secret]" for every verb.
func (URL) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hiddenURL)) }

// LogValue logs "[secret]".
func (URL) LogValue() slog.Value { return slog.StringValue(hiddenURL) }

// MarshalText writes "[secret]", also as JSON.
func (URL) MarshalText() ([]byte, error) { return []byte(hiddenURL), nil }

// Check says what is wrong with the URL, on one line that holds nothing of its values. It connects to nothing.
func (u URL) Check() error {
	_, err := u.config()
	return err
}

// config reads the URL. The errors of the parser are not wrapped: they have what they could not parse in them, and that may
// be the password.
func (u URL) config() (*pgx.ConnConfig, error) {
	text := string(u)
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return nil, errors.New("must begin with postgres://")
	}
	if cfg, err := pgx.ParseConfig(text); err == nil {
		return cfg, nil
	}
	_, query, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the parameters behind the question mark cannot be read")
	}
	var wrong []string
	for name, value := range values {
		alone := url.URL{Scheme: "postgres", Host: "localhost", RawQuery: url.Values{name: value}.Encode()}
		if _, err := pgx.ParseConfig(alone.String()); err != nil && isParameter(name) {
			wrong = append(wrong, name)
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return nil, fmt.Errorf("the parameter %s is not right", strings.Join(wrong, " and "))
	}
	return nil, errors.New("is not of the form postgres://user:password@host:port/database")
}

// isParameter says whether a name looks like that of a parameter: a piece of a password that was not escaped does not
// come into an error.
func isParameter(name string) bool {
	return slices.Contains([]string{
		"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcertmode", "sslnegotiation", "sslsni", "target_session_attrs", "connect_timeout",
		"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity", "min_protocol_version", "max_protocol_version",
		"channel_binding", "require_auth", "service", "servicefile", "passfile", "host", "port",
	}, name)
}
