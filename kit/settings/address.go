package settings

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Address is a host:port to listen on or to dial, such as "127.0.0.1:50051", "[::1]:50051" or "localhost:0".
// The port is a number from 0 to 65535. An empty host means every interface; an empty address means that there
// is none.
type Address string

// UnmarshalText takes a host:port. It returns an error that quotes what is not one.
func (a *Address) UnmarshalText(text []byte) error {
	raw := string(text)
	if raw != "" {
		_, port, err := net.SplitHostPort(raw)
		if err != nil {
			return fmt.Errorf("%q is not host:port", raw)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%q is not host:port with a port from 0 to 65535", raw)
		}
	}
	*a = Address(raw)
	return nil
}

// String returns the address as it was given.
func (a Address) String() string { return string(a) }

// Loopback says whether only this machine can reach the address: its host is "localhost" or an address of the
// loopback network.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
