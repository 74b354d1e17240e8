package forward

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ForwardedHeader is where proxies say for whom they call.
const ForwardedHeader = "x-forwarded-for"

// Proxies are the networks of the proxies in front of the edge whose word counts.
type Proxies []netip.Prefix

// Client returns the address of whoever called, without port. remote is the other end of the connection; forwarded are
// the values of x-forwarded-for, which anybody can write: they are read from the last hop backwards, and only as far as
// the hop that reports them is trusted.
func (p Proxies) Client(remote string, forwarded []string) string {
	client := host(remote)
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !p.trusts(client) {
			break
		}
		ip, err := netip.ParseAddr(host(strings.TrimSpace(hop)))
		if err != nil {
			break
		}
		client = ip.Unmap().WithZone("").String()
	}
	return client
}

func (p Proxies) trusts(address string) bool {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// host returns an address without its port, where it has one.
func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
}
