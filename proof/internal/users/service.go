package users

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/proof/internal/machine"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// patience bounds what is not measured.
const patience = time.Minute

// start runs the service over a database, or a directory of that name, and returns once it is healthy.
func (r *run) start(ctx context.Context, name string, data *postgres.Database) (*service.Process, error) {
	where := service.Data{Dir: filepath.Join(r.dir, name)}
	if data != nil {
		where.URL = data.URL
	}
	return r.program.Start(ctx, name, where)
}

// dial returns a client as services have it, of one service or of several that are replicas.
func (r *run) dial(services ...*service.Process) (*grpc.ClientConn, error) {
	var addresses []string
	for _, s := range services {
		addresses = append(addresses, s.Address)
	}
	return client.Dial(client.Config{
		Target: "static:///" + strings.Join(addresses, ","), Server: serverName, Identity: r.program.Identity,
		Services: []protoreflect.ServiceDescriptor{usersv1.File_users_v1_user_service_proto.Services().ByName("UserService")},
	})
}

// memory follows the resident memory of a process.
type memory struct {
	before uint64
	done   chan struct{}
	over   sync.WaitGroup
	most   atomic.Uint64
	err    error
}

// sampling is how often the memory is looked at.
const sampling = 10 * time.Millisecond

// watchMemory begins to follow.
func watchMemory(pid int) (*memory, error) {
	before, err := machine.Resident(pid)
	if err != nil {
		return nil, err
	}
	m := &memory{before: before, done: make(chan struct{})}
	m.most.Store(before)
	m.over.Go(func() {
		ticker := time.NewTicker(sampling)
		defer ticker.Stop()
		for {
			select {
			case <-m.done:
				return
			case <-ticker.C:
			}
			now, err := machine.Resident(pid)
			if err != nil {
				m.err = err
				return
			}
			m.most.Store(max(m.most.Load(), now))
		}
	})
	return m, nil
}

// soFar returns by how much the memory was larger at most than in the beginning, in MiB.
func (m *memory) soFar() float64 { return float64(m.most.Load()-m.before) / mebibytes }

// growth ends it, and returns what soFar does.
func (m *memory) growth() (float64, error) {
	close(m.done)
	m.over.Wait()
	return m.soFar(), m.err
}
