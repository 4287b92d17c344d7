package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Verify passes r through and returns ErrCorrupt in place of io.EOF if it did not have ref's size and digest.
func Verify(r io.ReadCloser, ref Ref) io.ReadCloser {
	return &verifier{ReadCloser: r, ref: ref, hash: sha256.New()}
}

type verifier struct {
	io.ReadCloser
	ref  Ref
	hash hash.Hash
	n    int64
}

// Read implements io.Reader.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.n > v.ref.Bytes {
		return n, v.corrupt("longer than %d bytes", v.ref.Bytes)
	}
	if err != io.EOF {
		return n, err
	}
	if v.n < v.ref.Bytes {
		return n, v.corrupt("ends after %d of %d bytes", v.n, v.ref.Bytes)
	}
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.ref.SHA256 {
		return n, v.corrupt("sha256 %s, want %s", got, v.ref.SHA256)
	}
	return n, io.EOF
}

func (v *verifier) corrupt(format string, args ...any) error {
	return &Error{Op: "read", URI: plain(v.ref.URI), Err: ErrCorrupt, Detail: fmt.Sprintf(format, args...)}
}

// refOf describes bytes that are stored under uri.
func refOf(uri string, body []byte) Ref {
	sum := sha256.Sum256(body)
	return Ref{URI: uri, SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(body))}
}

// digester hashes and counts what is read through it.
type digester struct {
	r        io.Reader
	hash     hash.Hash
	n        int64
	progress Progress // may be nil
	err      error    // of r, other than io.EOF
}

func newDigester(r io.Reader, progress Progress) *digester {
	return &digester{r: r, hash: sha256.New(), progress: progress}
}

// Read implements io.Reader.
func (d *digester) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.hash.Write(p[:n])
	d.n += int64(n)
	if n > 0 && d.progress != nil {
		d.progress(d.n)
	}
	if err != nil && err != io.EOF {
		d.err = err
	}
	return n, err
}

func (d *digester) ref(uri string) Ref {
	return Ref{URI: uri, SHA256: hex.EncodeToString(d.hash.Sum(nil)), Bytes: d.n}
}
