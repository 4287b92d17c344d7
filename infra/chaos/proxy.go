package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
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
