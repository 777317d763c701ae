package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Errors that a check wraps.
var (
	// ErrURL reports what is no http or https URL, or one with a user or password.
	ErrURL = errors.New("not a usable url")

	// ErrNotAllowed reports an address outside the networks that the operator allows.
	ErrNotAllowed = errors.New("address not allowed")

	// ErrUnresolved reports a host name that could not be resolved; it may be later.
	ErrUnresolved = errors.New("host not resolved")
)

// Config describes a Policy. The zero value allows loopback.
type Config struct {
	// Networks are allowed beyond loopback, as CIDR ("10.0.0.0/8", "fd00::/8") or single addresses.
	Networks []string

	// NoLoopback takes loopback out, for nodes that others share a network namespace with.
	NoLoopback bool

	// Resolver looks host names up. Default: net.DefaultResolver.
	Resolver Resolver
}

// A Resolver looks a host's addresses up. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A Policy says which addresses may be called. It is immutable, and safe for concurrent use.
type Policy struct {
	networks []netip.Prefix
	resolver Resolver
}

// New reads the networks; one that is neither CIDR nor address is an error.
func New(cfg Config) (*Policy, error) {
	p := &Policy{resolver: cfg.Resolver}
	if p.resolver == nil {
		p.resolver = net.DefaultResolver
	}
	if !cfg.NoLoopback {
		p.networks = append(p.networks, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	for _, s := range cfg.Networks {
		prefix, err := parseNetwork(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("egress: network %q is neither a CIDR such as 10.0.0.0/8 nor an address: %w", s, err)
		}
		p.networks = append(p.networks, prefix)
	}
	return p, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = plain(addr)
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if addr := prefix.Addr(); addr.Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, errors.New("a mapped network needs at least 96 bits; write it as IPv4")
		}
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

// CheckURL returns nil when raw is an http or https URL without user and password whose host may be called.
func (p *Policy) CheckURL(ctx context.Context, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", ErrURL, reason(err)) // the URL itself may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: it has to begin with http:// or https://", ErrURL)
	case u.User != nil:
		return fmt.Errorf("%w: it must not hold a user or password", ErrURL)
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%w: it names no host", ErrURL)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%w: its port %q is none", ErrURL, port)
		}
	}
	return p.CheckHost(ctx, u.Hostname())
}

// reason is why a URL could not be parsed, without the URL.
func reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if _, ok := errors.AsType[url.InvalidHostError](err); ok {
		return "its host has a character that hosts do not have"
	}
	if _, ok := errors.AsType[url.EscapeError](err); ok {
		return "it has an escape that is none"
	}
	return "it cannot be parsed"
}

// resolveTimeout bounds the look-up of a host name: a caller waits for it.
const resolveTimeout = 3 * time.Second

// CheckHost returns nil when host, a name or an address, has only addresses that may be called.
func (p *Policy) CheckHost(ctx context.Context, host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.CheckAddr(addr)
	}
	if host == "" || strings.ContainsAny(host, " /\\@?#%[]:\x00") {
		return fmt.Errorf("%w: %q is not a host name", ErrURL, host)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := p.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return fmt.Errorf("%w: %q", ErrUnresolved, host)
	}
	for _, addr := range addrs {
		if err := p.CheckAddr(addr); err != nil {
			return fmt.Errorf("host %q: %w", host, err)
		}
	}
	return nil
}

// CheckAddr returns nil when the address may be called.
func (p *Policy) CheckAddr(addr netip.Addr) error {
	addr = plain(addr)
	for _, network := range p.networks {
		if network.Contains(addr) && (!special(netip.PrefixFrom(addr, addr.BitLen())) || special(network)) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not in the networks that the operator of this node allows", ErrNotAllowed, addr)
}

// Control is for net.Dialer.ControlContext: it refuses a connection by the address that the name resolved to.
func (p *Policy) Control(_ context.Context, _, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q", ErrNotAllowed, address)
	}
	return p.CheckAddr(addr.Addr())
}

// plain is the address without zone, and IPv4 where IPv6 only wraps it.
func plain(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if nat64 := netip.MustParsePrefix("64:ff9b::/96"); nat64.Contains(addr) { // RFC 6052
		b := addr.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}

// special reports whether the prefix lies within the addresses that have a meaning of their own and are never an
// ordinary host's.
func special(prefix netip.Prefix) bool {
	for _, s := range []string{
		"0.0.0.0/8", "::/128", // this host, which many systems take for loopback
		"169.254.0.0/16", "fe80::/10", // link-local, with the metadata services of most clouds
		"fd00:ec2::254/128", "100.100.100.200/32", // metadata services of two clouds that are elsewhere
		"224.0.0.0/4", "ff00::/8", "255.255.255.255/32", // multicast and broadcast
	} {
		if set := netip.MustParsePrefix(s); prefix.Bits() >= set.Bits() && set.Contains(prefix.Addr()) {
			return true
		}
	}
	return false
}
