package signingkey_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/concordat-dev/concordat/services/auth/internal/signingkey"
)

func TestTheKeyIsMadeOnceForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signing-key.pem")
	first, err := signingkey.Load(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second, err := signingkey.Load(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equal(second) {
		t.Error("the second start has another key")
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %04o", info.Mode().Perm())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}

func TestManyMakersAtOnceGetOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signing-key.pem")
	keys := make([]ed25519.PrivateKey, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = signingkey.Load(path, rand.Reader); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if !key.Equal(keys[0]) {
			t.Fatal("two makers got different keys")
		}
	}
}

func TestAFileThatIsNotAKeyOfItsOwnerAloneIsRefused(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	_, good, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		text []byte
		mode os.FileMode
	}{
		{"a key that the group may read is refused", pkcs8(good), 0o640},
		{"a key that everybody may read is refused", pkcs8(good), 0o604},
		{"a key that others may write is refused", pkcs8(good), 0o602},
		{"an empty file is refused", nil, 0o600},
		{"a key of another kind is refused", pkcs8(other), 0o600},
		{"two keys are refused", append(pkcs8(good), pkcs8(good)...), 0o600},
		{"a block that is no key is refused", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no key")}), 0o600},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "signing-key.pem")
			if err := os.WriteFile(path, row.text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, row.mode); err != nil { // WriteFile's mode passes through the umask
				t.Fatal(err)
			}
			if _, err := signingkey.Load(path, rand.Reader); err == nil {
				t.Error("it was accepted")
			}
			if text, err := os.ReadFile(path); err != nil || string(text) != string(row.text) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	if _, err := signingkey.Load(filepath.Join(t.TempDir(), "missing", "key.pem"), rand.Reader); err == nil {
		t.Error("no error")
	}
}
