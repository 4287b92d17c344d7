package hub

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const maxRedirects = 10

// guard decides which hosts and addresses a request may reach and which of them sees the token.
type guard struct {
	endpoint *url.URL
	hosts    []string    // patterns of hosts that may serve files
	listed   bool        // hosts come from the operator, who then vouches for their addresses
	proxies  sync.Map    // host:port of the proxies in use
	private  atomic.Bool // the endpoint itself has a private address: so may the hosts that it names
}

func newGuard(cfg Config) *guard {
	g := &guard{endpoint: cfg.Endpoint, hosts: cfg.Hosts, listed: len(cfg.Hosts) > 0}
	switch {
	case g.listed:
	case cfg.Endpoint.Host == "huggingface.co":
		g.hosts = huggingFaceHosts
	default:
		g.hosts = []string{"*"}
	}
	return g
}

// client returns the HTTP client that keeps the guard's rules.
func (g *guard) client() *http.Client {
	transport := &http.Transport{
		Proxy:                 g.proxy,
		DialContext:           g.dial,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   4,
	}
	return &http.Client{Transport: transport, CheckRedirect: g.redirect}
}

// isEndpoint reports whether u is on the very host that the token is for.
func (g *guard) isEndpoint(u *url.URL) bool {
	return u.Scheme == g.endpoint.Scheme && strings.EqualFold(u.Host, g.endpoint.Host)
}

// redirect is an http.Client's CheckRedirect. net/http itself would hand the token on to subdomains.
func (g *guard) redirect(req *http.Request, via []*http.Request) error {
	u := req.URL
	refuse := func(why string) error {
		return &Error{Op: "follow a redirect", Kind: ErrNotAllowed, Detail: why}
	}
	switch {
	case len(via) > maxRedirects:
		return &Error{Op: "follow a redirect", Kind: ErrUnavailable, Detail: fmt.Sprintf("more than %d redirects", maxRedirects)}
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse(fmt.Sprintf("to scheme %q", u.Scheme))
	case u.Scheme == "http" && g.endpoint.Scheme == "https":
		return refuse("from https to http on " + u.Host)
	case g.isEndpoint(u):
		return nil
	case !matchAny(g.hosts, strings.ToLower(u.Hostname())):
		return refuse(fmt.Sprintf("to host %s; if it is to serve files, add it to DURATUNE_HUB_HOSTS", u.Hostname()))
	}
	req.Header.Del("Authorization")
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil { // behind a proxy the dialled address says nothing
		return g.checkAddr(u.Hostname(), ip)
	}
	return nil
}

// proxy is http.ProxyFromEnvironment, and remembers the proxies: their addresses are the operator's choice.
func (g *guard) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if u != nil {
		g.proxies.Store(u.Hostname(), true)
	}
	return u, err
}

// dial connects and checks the address that the name resolved to, at the last moment before connect.
func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	d.Control = func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return g.checkAddr(host, ap.Addr())
	}
	return d.DialContext(ctx, network, addr)
}

var (
	nat64        = netip.MustParsePrefix("64:ff9b::/96")
	carrierNAT   = netip.MustParsePrefix("100.64.0.0/10")
	metadataAddr = []netip.Addr{ // besides the link-local 169.254.169.254
		netip.MustParseAddr("fd00:ec2::254"),   // AWS over IPv6
		netip.MustParseAddr("100.100.100.200"), // Alibaba
		netip.MustParseAddr("168.63.129.16"),   // Azure
	}
)

// checkAddr refuses addresses that no hub has: link-local ones (where clouds hand out credentials), and private ones for
// a host that only a redirect named.
func (g *guard) checkAddr(host string, ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	refuse := func(what string) error {
		return &Error{Op: "connect to " + host, Kind: ErrNotAllowed, Detail: fmt.Sprintf("%s is %s address", ip, what)}
	}
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return refuse("a link-local, multicast or unspecified")
	}
	for _, m := range metadataAddr {
		if ip == m {
			return refuse("a cloud's metadata")
		}
	}
	if !ip.IsPrivate() && !ip.IsLoopback() && !carrierNAT.Contains(ip) {
		return nil
	}
	_, isProxy := g.proxies.Load(host)
	switch {
	case strings.EqualFold(host, g.endpoint.Hostname()):
		g.private.Store(true)
	case isProxy, g.private.Load(), g.listed && matchAny(g.hosts, strings.ToLower(host)):
	default:
		return refuse("a private")
	}
	return nil
}
