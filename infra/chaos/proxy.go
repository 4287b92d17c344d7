package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// mode is how the store misbehaves.
type mode int32

const (
	healthy   mode = iota
	erring         // answers 500
	slow           // waits a second before each answer
	truncated      // cuts the bodies of downloads short
)

// proxy stands between the workers and the S3 gateway. It keeps the Host header, which signatures cover.
type proxy struct {
	url    string
	mode   atomic.Int32
	target atomic.Pointer[url.URL]
	server *http.Server

	mu    sync.Mutex
	watch *watch
}

// watch waits for the n-th write of an object whose key ends in a name.
type watch struct {
	name string
	n    int
	seen chan struct{} // closed then
}

// await returns what is closed as soon as a worker has begun n writes (parts count, too) of objects of that name.
func (p *proxy) await(name string, n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = &watch{name: name, n: n, seen: make(chan struct{})}
	return p.watch.seen
}

// note tells whoever waits for a write.
func (p *proxy) note(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watch; w != nil && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/epoch-") && strings.HasSuffix(r.URL.Path, w.name) {
		if w.n--; w.n <= 0 {
			close(w.seen)
			p.watch = nil
		}
	}
}

func startProxy(ctx context.Context) (*proxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{url: "http://" + l.Addr().String()}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			host := r.In.Host
			r.SetURL(p.target.Load())
			r.Out.Host = host
		},
		ModifyResponse: func(r *http.Response) error {
			if mode(p.mode.Load()) == truncated && r.Request.Method == http.MethodGet && r.ContentLength > 1 {
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.LimitReader(r.Body, r.ContentLength/2), r.Body}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mode(p.mode.Load()) {
		case erring:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case slow:
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			}
		case healthy, truncated:
		}
		if p.target.Load() == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		p.note(r)
		reverse.ServeHTTP(w, r)
	})}
	go func() { _ = p.server.Serve(l) }() // ends with close
	return p, nil
}

// forward names the gateway behind the proxy.
func (p *proxy) forward(target string) {
	if u, err := url.Parse(target); err == nil {
		p.target.Store(u)
	}
}

func (p *proxy) set(m mode) { p.mode.Store(int32(m)) }

func (p *proxy) close() error { return p.server.Close() }
