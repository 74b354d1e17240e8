package sqldb

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

func TestAURLThatIsRightIsAccepted(t *testing.T) {
	for _, u := range []URL{
		"postgres://u:p@localhost/db",
		"postgresql://u@localhost:5433/db?sslmode=require&connect_timeout=3",
		"postgres://u:p@a:5432,b:5433,[::1]:5434/db?target_session_attrs=read-write",
		"postgres://u:p@a,b/db",
		"postgres:///db?host=/var/run/postgresql&default_query_exec_mode=exec",
	} {
		if err := u.Check(); err != nil {
			t.Errorf("%s: %v", string(u), err)
		}
	}
}

func TestAURLThatIsWrongIsOneLineWithoutItsValues(t *testing.T) {
	for u, want := range map[URL]string{
		"mysql://u:hush@localhost/db":                 "postgres://",
		"hush":                                        "postgres://",
		"host=localhost password=hush":                "postgres://",
		"postgres://u:hush%zz@localhost/db":           "of the form",
		"postgres://u:hu?sh@localhost:x/db":           "of the form",
		"postgres://u:hush@localhost:port/db":         "of the form",
		"postgres://u:hush@localhost/db?sslmode=hush": "the parameter sslmode",
		"postgres://u:hush@localhost/db?sslmode=no&target_session_attrs=hush":   "the parameter sslmode and target_session_attrs",
		"postgres://u:hush@localhost/db?sslmode=verify-full&sslrootcert=/hush":  "the parameter sslrootcert",
		"postgres://u:hush@localhost/db?default_query_exec_mode=hush":           "the parameter default_query_exec_mode",
		"postgres://u:hush@localhost/db?connect_timeout=hush&application_name=": "the parameter connect_timeout",
		"postgres://u:hush@localhost/db?x=%hush":                                "cannot be read",
	} {
		_, err := Open(t.Context(), postgresOptions(u))
		wantLine(t, err, want)
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error tells: %v", string(u), err)
		}
	}
}

func TestAURLDoesNotPrint(t *testing.T) {
	opts := Options{URL: "postgres://u:hush@localhost/db"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("opening", "url", opts.URL, "options", fmt.Sprint(opts))
	text, err := json.Marshal(map[string]any{"url": opts.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(opts.URL), fmt.Sprintf("%s %q %v %+v %#v %x", opts.URL, opts.URL, opts, opts, opts, opts.URL), string(text), log.String()} {
		if strings.Contains(s, "hush") || !strings.Contains(s, "[secret]") {
			t.Errorf("it prints %s", s)
		}
	}
}

// No error has the password, whatever goes wrong, and each is one line that says where it was.
func TestADatabaseThatCannotBeOpenedIsOneClearLine(t *testing.T) {
	t.Parallel()
	s := postgrestest.Shared(t)
	url := s.Database(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deaf.Close()
	host := fmt.Sprintf("127.0.0.1:%d", s.Port())
	for name, test := range map[string]struct {
		url         string
		about       string
		unavailable bool
	}{
		"nobody listens":         {strings.Replace(url, host, deaf.Addr().String(), 1), deaf.Addr().String(), true},
		"nobody listens on both": {strings.Replace(url, host, deaf.Addr().String()+","+deaf.Addr().String(), 1), deaf.Addr().String(), true},
		"nobody answers":         {strings.Replace(url, host, silent.Addr().String(), 1), silent.Addr().String(), false},
		"the password is wrong":  {strings.Replace(url, s.Password(), s.Password()+"x", 1), "password authentication failed", true},
		"there is no database":   {strings.Replace(url, "/test_", "/test_0", 1), "does not exist", true},
		"TLS is not offered":     {strings.Replace(url, "sslmode=disable", "sslmode=require", 1), "TLS", true},
	} {
		t.Run(name, func(t *testing.T) {
			opts := postgresOptions(URL(test.url), notes())
			ctx := within(t, 2*time.Second)
			if test.unavailable { // it is told so at once, and tried for 10 s of pauses
				opts.Clock, ctx = hasty{opts.Clock}, t.Context()
			}
			began := time.Now()
			_, err := Open(ctx, opts)
			wantLine(t, err, test.about)
			if errors.Is(err, ErrUnavailable) != test.unavailable {
				t.Errorf("Open returned %v", err)
			}
			if strings.Contains(fmt.Sprintf("%+v", err), s.Password()) {
				t.Errorf("the error tells the password: %v", err)
			}
			if took := time.Since(began); took > 9*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestADatabaseOfAnotherEncodingIsRefused(t *testing.T) {
	t.Parallel()
	s := postgrestest.Shared(t)
	s.Exec(t, `CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`)
	t.Cleanup(func() { s.Exec(t, `DROP DATABASE latin`) })
	_, err := Open(t.Context(), postgresOptions(URL(strings.Replace(s.Admin(), "/postgres?", "/latin?", 1))))
	wantLine(t, err, "LATIN1")
}
