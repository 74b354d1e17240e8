package eventlog

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

func testSigner() *signer {
	s := &signer{}
	copy(s.epoch[:], "an epoch of bytes")
	copy(s.key[:], "a key that is known to the tests")
	return s
}

func TestATokenHoldsItsPosition(t *testing.T) {
	s := testSigner()
	for _, seq := range []int64{0, 1, 255, 1 << 40, math.MaxInt64} {
		token := s.token(scope, seq)
		if len(token) != TokenLength {
			t.Errorf("token of %d characters", len(token))
		}
		if got, foreign, err := s.parse(scope, token); got != seq || foreign || err != nil {
			t.Errorf("parse gave %d, %v, %v; want %d", got, foreign, err, seq)
		}
	}
}

func TestATokenWithAnyBitFlippedIsRefused(t *testing.T) {
	s := testSigner()
	token := s.token(scope, 42)
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if _, _, err := s.parse(scope, base64.RawURLEncoding.EncodeToString(raw)); !errors.Is(err, ErrBadToken) {
			t.Errorf("bit %d of the bytes: %v", bit, err)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	for bit := range len(token) * 8 {
		text := []byte(token)
		text[bit/8] ^= 1 << (bit % 8)
		if _, _, err := s.parse(scope, string(text)); !errors.Is(err, ErrBadToken) {
			t.Errorf("bit %d of the text: %v", bit, err)
		}
	}
}

func TestAForgedTokenIsRefused(t *testing.T) {
	s := testSigner()
	forge := func(change func(raw []byte)) string {
		raw, err := base64.RawURLEncoding.DecodeString(s.token(scope, 42))
		if err != nil {
			t.Fatal(err)
		}
		change(raw)
		binary.BigEndian.PutUint32(raw[sumAt:], crc32.ChecksumIEEE(raw[:sumAt])) // anybody can make the sum
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	other := testSigner()
	other.key[0]++
	for name, token := range map[string]string{
		"another position":    forge(func(raw []byte) { raw[seqAt+7]++ }),
		"a negative position": forge(func(raw []byte) { raw[seqAt] |= 0x80 }),
		"another version":     forge(func(raw []byte) { raw[0]++ }),
		"another MAC":         forge(func(raw []byte) { raw[macAt]++ }),
		"another key":         other.token(scope, 42),
		"another scope":       s.token("other/Watch", 42),
		"no scope":            s.token("", 42),
		"a longer scope":      s.token(scope+"x", 42),
	} {
		if _, foreign, err := s.parse(scope, token); !errors.Is(err, ErrBadToken) || foreign {
			t.Errorf("%s: foreign %v, %v", name, foreign, err)
		}
	}
	if _, foreign, err := s.parse(scope, forge(func(raw []byte) { raw[1]++ })); !foreign || err != nil {
		t.Errorf("another epoch: foreign %v, %v", foreign, err)
	}
}

func TestATokenThatIsNoneIsRefusedWithItsField(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		valid := f.subscribe("", nil).Position()
		for name, token := range map[string]string{
			"one character":         "A",
			"a text":                "not a token",
			"too short":             valid[:len(valid)-1],
			"too long":              valid + "A",
			"a group too long":      valid + "AAAA",
			"a line break":          valid[:TokenLength-1] + "\n",
			"line breaks to ignore": valid[:10] + "\n\n" + valid[12:],
			"the other base64":      "+/" + valid[2:],
			"padding":               valid[:TokenLength-1] + "=",
			"only zeros":            base64.RawURLEncoding.EncodeToString(make([]byte, tokenSize)),
		} {
			_, err := f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: token})
			got, ok := fault.As(err)
			if !ok || !errors.Is(err, ErrBadToken) || got.Kind() != fault.InvalidArgument {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if v := got.Violations(); len(v) != 1 || v[0].Field != "resume_token" {
				t.Errorf("%s: violations %v", name, v)
			}
		}
	})
}

func TestATokenIsGoodForItsScopeAlone(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		token := f.subscribe("", nil).Position()
		if _, err := f.log.Subscribe(t.Context(), Watch{Scope: "other/Watch", Token: token}); !errors.Is(err, ErrBadToken) {
			t.Errorf("Subscribe returned %v", err)
		}
	})
}

func TestATokenOfAnotherHistoryIsTooOld(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.append("a")
		other := openLog(t, fresh(t), options())
		other.append("a", "b")
		_, err := f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: other.subscribe("", nil).Position()})
		wantTooOld(t, f, err, "a")
	})
}

func TestATokenFromBeforeARestoredBackupIsTooOld(t *testing.T) {
	first := openLog(t, freshSQLite(t), options())
	first.append("a")
	if err := first.db.Close(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(filepath.Join(first.at.dir, "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	later := openLog(t, first.at, options())
	later.append("b", "c")
	token := later.subscribe("", nil).Position()
	if err := later.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(first.at.dir, "log.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	restored := openLog(t, first.at, options())
	_, err = restored.log.Subscribe(t.Context(), Watch{Scope: scope, Token: token})
	wantTooOld(t, restored, err, "a")
}

// The log went on after the backup and then again after it was restored: the numbers of the two are the same, the events not.
func TestARestoredLogThatIsRenewedTakesNoTokenOfItsPast(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.append("a", "b")
		token := f.subscribe("", nil).Position()
		renew := func(random io.Reader) error {
			return f.db.Write(t.Context(), func(tx *sqldb.Tx) error { return Renew(t.Context(), tx, random) })
		}
		if err := renew(strings.NewReader("too little")); err == nil {
			t.Error("an epoch was made of too little randomness")
		}
		wantNoneAfter(t, openLogAgain(t, f), token)
		if err := renew(rand.Reader); err != nil {
			t.Fatal(err)
		}
		restored := openLogAgain(t, f)
		_, err := restored.log.Subscribe(t.Context(), Watch{Scope: scope, Token: token})
		wantTooOld(t, restored, err, "a", "b", "last")
	})
}

// openLogAgain opens the log as another process would after a restart.
func openLogAgain(t *testing.T, f *fixture) *fixture {
	t.Helper()
	log, err := Open(t.Context(), f.db, options())
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, at: f.at, db: f.db, log: log}
}

// wantTooOld checks that err is ErrTooOld and that its token gives what is retained.
func wantTooOld(t *testing.T, f *fixture, err error, retained ...string) {
	t.Helper()
	got, ok := fault.As(err)
	if !ok || !errors.Is(err, ErrTooOld) || got.Kind() != fault.OutOfRange {
		t.Fatalf("got %v, want %v", err, ErrTooOld)
	}
	s := f.subscribe(got.Metadata()[MetadataOldestToken], nil)
	wantNext(t, s, retained...)
}

func FuzzToken(f *testing.F) {
	s := testSigner()
	f.Add(scope, s.token(scope, 1))
	f.Add("", s.token("", math.MaxInt64))
	f.Add("", "")
	f.Add(scope, base64.RawURLEncoding.EncodeToString(make([]byte, tokenSize)))
	f.Fuzz(func(t *testing.T, scope, token string) {
		seq, foreign, err := s.parse(scope, token)
		switch {
		case err != nil:
			if !errors.Is(err, ErrBadToken) || seq != 0 || foreign {
				t.Errorf("parse gave %d, %v, %v", seq, foreign, err)
			}
		case foreign:
			if seq != 0 {
				t.Errorf("a foreign token gave position %d", seq)
			}
		case seq < 0 || s.token(scope, seq) != token:
			t.Errorf("%q was taken for position %d, whose token it is not", token, seq)
		}
	})
}
