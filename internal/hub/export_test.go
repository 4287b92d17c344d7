package hub

import (
	"context"
	"net/netip"
	"time"
)

// SetWait replaces the pauses between tries; the test sees how long they would have been.
func (c *Client) SetWait(wait func(context.Context, time.Duration) error) { c.wait = wait }

// SetStall sets how long a transfer may go without a byte.
func (c *Client) SetStall(d time.Duration) { c.stall = d }

// CheckAddr is the guard's rule on addresses.
func (c *Client) CheckAddr(host, ip string) error {
	return c.guard.checkAddr(host, netip.MustParseAddr(ip))
}

// Scrub is scrub.
var Scrub = scrub

// GlobMatch is globMatch.
var GlobMatch = globMatch
