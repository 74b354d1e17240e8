// Package signingkey keeps the Ed25519 key that signs access tokens in a file of its own.
//
// What is promised: the file is made whole or not at all, also when two processes make it at once, and a key that
// others than its owner could have read is refused. What is lost with the file: every access token that it has signed,
// and nothing else.
package signingkey

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	blockType = "PRIVATE KEY" // PKCS #8
	mode      = 0o600
	maxBytes  = 16 << 10
)

// Load returns the key in the file at path. If there is no file, it makes a key from random, which must be
// cryptographically strong, in a file that only its owner can read; the directory must exist.
//
// It returns an error for a file that others may read or write, and for one that is not an Ed25519 key in PEM (PKCS #8).
func Load(path string, random io.Reader) (ed25519.PrivateKey, error) {
	key, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := write(path, random); err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	return read(path)
}

func read(path string) (ed25519.PrivateKey, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open signing key: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at signing key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("signing key %s is not a file", path)
	}
	if open := info.Mode().Perm() &^ 0o700; open != 0 {
		return nil, fmt.Errorf("signing key %s is open to others (mode %04o): make it 0600, and if they may have read it, remove it so that a new one is made", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, maxBytes))
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != blockType || len(rest) > 0 {
		return nil, fmt.Errorf("signing key %s is not one PEM block %q", path, blockType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing key %s does not hold a PKCS #8 key", path) // the cause might show some of it
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing key %s is not an Ed25519 key", path)
	}
	return key, nil
}

// write makes the file. If another process made one first, that one stays.
func write(path string, random io.Reader) error {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".signing-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if err := errors.Join(pem.Encode(temp, &pem.Block{Type: blockType, Bytes: der}), temp.Chmod(mode), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never replaces what is there.
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the name of a new file survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
