package memstore_test

import (
	"crypto/rand"
	"testing"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/services/payments/internal/memstore"
	"github.com/concordat-dev/concordat/services/payments/internal/storetest"
)

// database is a store that outlives its closing, as a database does.
type database struct{ *memstore.Store }

func (d database) Open(*testing.T) storetest.Store { return d }
func (database) Close() error                      { return nil }
func (database) PageKey() []byte                   { return []byte("key") }

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) storetest.Database {
		return database{memstore.New(clock.System(), id.Generator(clock.System(), rand.Reader))}
	})
}
