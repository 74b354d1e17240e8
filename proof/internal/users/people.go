package users

import (
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// Who the users are: everyone has a label "plan". One in a thousand has the plan rare, one in ten pro, the others free. What is
// unique of a user is in no order, as with people who sign up: emails and request ids are random; user ids are in order, as
// ids that were made one after the other are.
const (
	planRare, planPro, planFree = "rare", "pro", "free"
	oneInRare, oneInPro         = 1000, 10
)

// epoch is when the first user id was made, in milliseconds since 1970.
const epoch = 1_790_000_000_000

// personID returns the id of the n-th user, a UUIDv7.
func personID(n int) string { return randomID(uint64(n), 7, uint64(epoch+n)) }

// requestID returns the request id with which the n-th user is made, a UUIDv4.
func requestID(n int) string {
	random := rand.New(rand.NewPCG(2, uint64(n)))
	return randomID(random.Uint64(), 4, random.Uint64())
}

// randomID returns a UUID of a version, whose first 48 bits are those of first, and whose rest is random.
func randomID(seed uint64, version byte, first uint64) string {
	random := rand.New(rand.NewPCG(1, seed))
	var id uuid.UUID
	for i := range 6 {
		id[i] = byte(first >> (8 * (5 - i)))
	}
	low, high := random.Uint64(), random.Uint32()
	for i := range 8 {
		id[8+i] = byte(low >> (8 * i))
	}
	id[6], id[7] = version<<4|byte(high)&0xf, byte(high>>8)
	id[8] = 0x80 | id[8]&0x3f
	return id.String()
}

// person returns the n-th user.
func person(n int) *usersv1.CreateUserRequest {
	random := rand.New(rand.NewPCG(3, uint64(n)))
	plan := planFree
	switch {
	case n%oneInRare == 7:
		plan = planRare
	case n%oneInPro == 0:
		plan = planPro
	}
	first := fmt.Sprintf("%c%c%c", 'A'+random.IntN(26), 'a'+random.IntN(26), 'a'+random.IntN(26))
	return &usersv1.CreateUserRequest{
		UserId: personID(n), RequestId: requestID(n), Email: fmt.Sprintf("%08x.person.%d@example.com", random.Uint32(), n),
		DisplayName: fmt.Sprintf("%s Person %d", first, n), FirstName: first, LastName: fmt.Sprintf("Person %d", n),
		Labels: map[string]string{"plan": plan},
	}
}

// anyone returns a function that returns an encoded GetUserRequest for a random one of the first count users.
func anyone(count int) (func() []byte, error) {
	var block []byte
	size := 0
	for n := range count {
		m, err := proto.Marshal(&usersv1.GetUserRequest{UserId: personID(n)})
		if err != nil {
			return nil, err
		}
		block, size = append(block, m...), len(m) // all ids have one length
	}
	return func() []byte {
		n := rand.IntN(count) * size
		return block[n : n+size]
	}, nil
}
