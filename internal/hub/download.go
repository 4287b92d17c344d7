package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Progress says how far a download of one or more files is.
type Progress struct {
	File  string // the file at hand, as a path in the repository
	Done  int64  // bytes that are here, of all files
	Total int64  // bytes of all files
}

// Percent is Done as a share of Total, 0 to 100.
func (p Progress) Percent() float64 {
	if p.Total == 0 {
		return 100
	}
	return 100 * float64(p.Done) / float64(p.Total)
}

// ProgressFunc is called as bytes arrive, from one goroutine at a time; it may be nil.
type ProgressFunc func(Progress)

// Download fetches files of snap into dir (under their own paths), which is made if it is missing. What the cache holds
// is not fetched again. On an error the files that are whole stay, and a part that is sound is kept for the next call.
func (c *Client) Download(ctx context.Context, snap *Snapshot, files []File, dir string, progress ProgressFunc) error {
	var before, total int64
	for _, f := range files {
		total += f.Size
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	for _, f := range files {
		if err := f.check(); err != nil {
			return &Error{Op: "download", Repo: snap.Name, Revision: snap.Commit, Kind: ErrInvalid, Detail: err.Error()}
		}
		blob, err := c.fetch(ctx, snap, f, func(done int64) { progress(Progress{f.Path, before + done, total}) })
		if err != nil {
			return err
		}
		if err := place(blob, filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil {
			return err
		}
		before += f.Size
		progress(Progress{f.Path, before, total})
	}
	return nil
}

// fetch brings one file into the cache and returns its path there.
func (c *Client) fetch(ctx context.Context, snap *Snapshot, f File, progress func(int64)) (blob string, err error) {
	dir := filepath.Join(c.cfg.CacheDir, "blobs")
	blob = filepath.Join(dir, f.blobName())
	if haveBlob(blob, f.Size) {
		return blob, nil
	}
	at := Error{Op: "download", Repo: snap.Name, Revision: snap.Commit, File: f.Path}
	if c.cfg.Offline {
		return "", at.with(ErrOffline, "HF_HUB_OFFLINE is set and the file is not in "+c.cfg.CacheDir)
	}
	p, err := openPartial(ctx, dir, f, progress)
	if errors.Is(err, errHave) {
		return blob, nil
	}
	if err != nil {
		return "", err
	}
	t := transfer{client: c, at: at, part: p, progress: progress, address: c.fileURL(snap, f)}
	err = t.run(ctx)
	switch {
	case err == nil:
		return blob, p.publish()
	case errors.Is(err, ErrCorrupt):
		return "", errors.Join(err, p.discard())
	default:
		return "", errors.Join(err, p.keep())
	}
}

// fileURL is where the hub serves a file of a snapshot.
func (c *Client) fileURL(snap *Snapshot, f File) string {
	var segments []string
	if snap.Type == TypeDataset {
		segments = append(segments, "datasets")
	}
	segments = append(segments, strings.Split(snap.Name, "/")...)
	segments = append(segments, "resolve", snap.Commit)
	return c.url("", append(segments, strings.Split(f.Path, "/")...)...)
}

// transfer fills a partial.
type transfer struct {
	client   *Client
	at       Error
	address  string
	part     *partial
	progress func(int64)
	etag     string // of the bytes received in this transfer, if the server gave one
}

// run fetches until the file is whole and verified. Bytes from an earlier download that do not verify are fetched anew;
// bytes from this one are an error.
func (t *transfer) run(ctx context.Context) error {
	for {
		err := t.client.retry(ctx, func() (bool, error) {
			before := t.part.size
			err := t.try(ctx)
			return t.part.size > before, err
		})
		if err != nil {
			return err
		}
		got, ok := t.part.verify()
		if ok {
			return nil
		}
		if !t.part.old {
			return t.at.with(ErrCorrupt, fmt.Sprintf("digest %s, the hub states %s", got, t.part.want.stated()))
		}
		if err := t.part.restart(); err != nil {
			return err
		}
	}
}

// try makes one request for the bytes that are missing and appends what comes.
func (t *transfer) try(ctx context.Context) error {
	p := t.part
	if p.size == p.want.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{"Accept-Encoding": {"identity"}} // lengths and ranges are those of the file
	if p.size > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
		if t.etag != "" {
			header.Set("If-Range", t.etag)
		}
	}
	resp, err := t.client.get(ctx, t.at, t.address, header)
	if errors.Is(err, errRange) { // the server has less than we do
		if err := p.restart(); err != nil {
			return err
		}
		return t.at.with(ErrUnavailable, "the part kept from before does not fit; starting anew")
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := t.begin(resp); err != nil {
		return err
	}
	stalled := t.at.with(ErrUnavailable, fmt.Sprintf("no byte came for %s", t.client.stall))
	watch := time.AfterFunc(t.client.stall, func() { cancel(stalled) })
	defer watch.Stop()
	return t.copy(ctx, resp.Body, watch)
}

// begin checks that the answer is the missing rest, or the whole file.
func (t *transfer) begin(resp *http.Response) error {
	p := t.part
	if resp.StatusCode == http.StatusPartialContent {
		want := fmt.Sprintf("bytes %d-%d/%d", p.size, p.want.Size-1, p.want.Size)
		if got := resp.Header.Get("Content-Range"); got != want {
			return t.at.with(ErrCorrupt, fmt.Sprintf("range %q, want %q", got, want))
		}
	} else {
		if n := resp.ContentLength; n >= 0 && n != p.want.Size {
			return t.at.with(ErrCorrupt, "length "+strconv.FormatInt(n, 10)+", the hub states "+strconv.FormatInt(p.want.Size, 10))
		}
		if p.size > 0 {
			if err := p.restart(); err != nil {
				return err
			}
		}
	}
	t.etag = ""
	if e := resp.Header.Get("ETag"); !strings.HasPrefix(e, "W/") {
		t.etag = e
	}
	return nil
}

// copy appends the body, at most to the stated size.
func (t *transfer) copy(ctx context.Context, body io.Reader, watch *time.Timer) error {
	p := t.part
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		watch.Reset(t.client.stall)
		if p.size+int64(n) > p.want.Size {
			return t.at.with(ErrCorrupt, fmt.Sprintf("more than the %d bytes that the hub states", p.want.Size))
		}
		if _, err := p.Write(buf[:n]); err != nil {
			return err
		}
		t.progress(p.size)
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return t.at.transport(ctx, err)
		case p.size < p.want.Size:
			return t.at.with(ErrUnavailable, fmt.Sprintf("the connection ended after %d of %d bytes", p.size, p.want.Size))
		default:
			return nil
		}
	}
}
