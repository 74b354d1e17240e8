package client

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/resolver"
)

const staticScheme = "static"

// static resolves "static:///host1:port,host2:port": replicas that are written down one by one, where there is no DNS name
// for all of them. It belongs to one connection and is registered nowhere.
type static struct {
	authority string // what the calls say they are for, since a list is none
}

var _ interface {
	resolver.Builder
	resolver.AuthorityOverrider
} = static{}

func (static) Scheme() string                             { return staticScheme }
func (s static) OverrideAuthority(resolver.Target) string { return s.authority }

func (static) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	list, err := addresses(target.Endpoint())
	if err != nil {
		return nil, err
	}
	var state resolver.State
	for _, address := range list {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	if err := cc.UpdateState(state); err != nil {
		return nil, fmt.Errorf("use the addresses: %w", err)
	}
	return fixed{}, nil
}

// fixed is a resolver whose answer never changes.
type fixed struct{}

func (fixed) ResolveNow(resolver.ResolveNowOptions) {}
func (fixed) Close()                                {}

// checkTarget finds what is wrong with a static target, which grpc would find only when the connection is first used.
func checkTarget(target string) error {
	scheme, rest, _ := strings.Cut(target, ":")
	if scheme != staticScheme {
		return nil
	}
	list, ok := strings.CutPrefix(rest, "///")
	if !ok {
		return errors.New("a static target looks like static:///host1:port,host2:port")
	}
	_, err := addresses(list)
	return err
}

// addresses returns the members of a list "host1:port,host2:port".
func addresses(list string) ([]string, error) {
	found := strings.Split(list, ",")
	for i, address := range found {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", address, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return nil, fmt.Errorf("address %q is not host:port", address)
		}
		if slices.Contains(found[:i], address) {
			return nil, fmt.Errorf("address %q is there twice", address)
		}
	}
	return found, nil
}
