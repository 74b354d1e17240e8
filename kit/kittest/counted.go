package kittest

import (
	"net"
	"sync/atomic"
)

// Counted is a net.Listener that counts connections. As Options.Listener it tells whether a client of the harness has one
// connection, or one for each call.
type Counted struct {
	net.Listener
	accepted atomic.Int64
}

// Accept implements net.Listener.
func (c *Counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

// Accepted returns how many connections were accepted.
func (c *Counted) Accepted() int64 { return c.accepted.Load() }
