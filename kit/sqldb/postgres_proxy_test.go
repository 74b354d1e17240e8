package sqldb

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a client and the server and understands where a message of the client ends.
type proxy struct {
	listener net.Listener
	server   string
	url      URL

	mu    sync.Mutex
	seen  func(m message) verdict // asked about each message of a client
	trips int                     // messages that the client waits for the answer of
	conns map[net.Conn]struct{}
	group sync.WaitGroup
}

// message is one of a client, after its session has begun.
type message struct {
	kind byte
	text string
}

// verdict is what becomes of a message.
type verdict int

const (
	pass     verdict = iota
	cut              // the server does not get it, and the connection ends
	cutAfter         // the server gets it and answers, and the connection ends before the client has the answer
	swallow          // the server gets it, and the client never gets an answer
	fatal            // the server gets it and answers, and the client gets that the server ends the connection instead
)

// newProxy stands before the server of the URL.
func newProxy(t *testing.T, to URL) *proxy {
	t.Helper()
	u, err := url.Parse(string(to))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: u.Host, conns: make(map[net.Conn]struct{})}
	u.Host = l.Addr().String()
	p.url = URL(u.String())
	p.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.group.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cutAll()
		p.group.Wait()
	})
	return p
}

// watch sets what is asked about each message.
func (p *proxy) watch(seen func(m message) verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = seen
}

// count returns how many round trips there have been since the last call.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.trips
	p.trips = 0
	return n
}

// cutAll ends all connections.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) hold(c net.Conn, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held {
		p.conns[c] = struct{}{}
		return
	}
	delete(p.conns, c)
	c.Close()
}

func (p *proxy) serve(client net.Conn) {
	p.hold(client, true)
	defer p.hold(client, false)
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	p.hold(server, true)
	defer p.hold(server, false)

	back := &gate{to: client}
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		io.Copy(back, server)
		client.Close()
	}()
	p.relay(client, server, back, answers)
	server.Close()
	<-answers
}

// relay hands on what the client sends, until its end or a verdict; ended is closed when the server sends no more.
func (p *proxy) relay(client io.Reader, server io.Writer, back *gate, ended <-chan struct{}) {
	kind := 0 // the first message of a session has no kind, later ones have one byte of it
	for ; ; kind = 1 {
		data := make([]byte, kind+4)
		if _, err := io.ReadFull(client, data); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(data[kind:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		v := pass
		if kind == 1 {
			v = p.judge(data[0], body)
		}
		data = append(data, body...)
		switch v {
		case cut:
			return
		case swallow:
			back.shut()
		case cutAfter, fatal:
			answered := back.shut()
			if _, err := server.Write(data); err == nil {
				select {
				case <-answered:
				case <-ended:
				}
			}
			if v == fatal {
				back.tell(crashed())
			}
			return
		}
		if _, err := server.Write(data); err != nil {
			return
		}
	}
}

func (p *proxy) judge(kind byte, body []byte) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := message{kind: kind}
	switch kind {
	case 'Q': // a simple query
		m.text = string(body[:len(body)-1])
		p.trips++
	case 'S': // the end of an extended query
		p.trips++
	case 'B': // of a prepared statement: its portal, its name
		m.text = "bind"
	}
	if p.seen == nil {
		return pass
	}
	return p.seen(m)
}

// gate hands on the answers, until it is shut.
type gate struct {
	mu     sync.Mutex
	to     io.Writer
	closed chan struct{} // closed with the first answer that was not handed on
	once   sync.Once
}

// shut lets no answer through any more, and returns what is closed when the first was held back.
func (g *gate) shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = make(chan struct{})
	return g.closed
}

// tell has the client get something else.
func (g *gate) tell(b []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = g.to.Write(b) // where it is gone it learns of that
}

// crashed is what a server says to each client when one of its processes has crashed.
func crashed() []byte {
	fields := "SFATAL\x00VFATAL\x00C57P02\x00Mterminating connection because of crash of another server process\x00\x00"
	return append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(fields))), fields...)
}

func (g *gate) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		g.once.Do(func() { close(g.closed) })
		return len(b), nil
	}
	return g.to.Write(b)
}
