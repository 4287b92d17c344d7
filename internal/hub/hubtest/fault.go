package hubtest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
)

// Fault answers one request wrongly; next is what would have answered it.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

type fault struct {
	suffix string
	apply  Fault
}

// Inject makes the next requests to a host for paths with the suffix fail, one fault each, in order.
func (h *Hub) Inject(host Host, suffix string, faults ...Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range faults {
		h.faults[host] = append(h.faults[host], fault{suffix, f})
	}
}

// takeFault removes and returns the first fault for a path, nil if there is none. The caller holds h.mu.
func (h *Hub) takeFault(host Host, path string) Fault {
	list := h.faults[host]
	for i, f := range list {
		if strings.HasSuffix(path, f.suffix) {
			h.faults[host] = append(list[:i:i], list[i+1:]...)
			return f.apply
		}
	}
	return nil
}

// Status answers with a status and headers (name, value, …).
func Status(code int, header ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// Cut closes the connection after n bytes of the body.
func Cut(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&limited{w, n, func() {}}, r)
	}
}

// Hang stops after n bytes of the body and leaves the connection open until the client gives up.
func Hang(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&limited{w, n, func() { <-r.Context().Done() }}, r)
	}
}

// limited passes left bytes through, calls then, and closes the connection.
type limited struct {
	http.ResponseWriter
	left int
	then func()
}

func (l *limited) Write(b []byte) (int, error) {
	if len(b) < l.left {
		l.left -= len(b)
		return l.ResponseWriter.Write(b)
	}
	_, _ = l.ResponseWriter.Write(b[:l.left])
	control := http.NewResponseController(l.ResponseWriter)
	_ = control.Flush()
	l.then()
	conn, _, err := control.Hijack()
	if err != nil {
		return l.left, err
	}
	return l.left, errors.Join(io.ErrClosedPipe, conn.Close())
}

// Rewrite serves another body, with the length that it has.
func Rewrite(change func([]byte) []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := change(rec.Body.Bytes())
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	}
}

// Truncate serves n bytes less, and says so in Content-Length.
func Truncate(n int) Fault {
	return Rewrite(func(b []byte) []byte { return b[:len(b)-n] })
}

// Pad serves n bytes more, and says so in Content-Length.
func Pad(n int) Fault {
	return Rewrite(func(b []byte) []byte { return append(b, make([]byte, n)...) })
}

// Flip serves the right number of bytes, one of them wrong.
func Flip() Fault {
	return Rewrite(func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	})
}

// Chunked serves the body without a length, and n bytes of it less.
func Chunked(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		body := rec.Body.Bytes()
		_, _ = w.Write(body[:1]) // flushed before the handler ends, so the server cannot compute a length
		w.(http.Flusher).Flush()
		_, _ = w.Write(body[1 : len(body)-n])
	}
}

// IgnoreRange serves the whole file whatever range is asked for.
func IgnoreRange() Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Del("Range")
		next.ServeHTTP(w, r)
	}
}

// Redirect sends the client elsewhere.
func Redirect(target string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, target, http.StatusFound)
	}
}
