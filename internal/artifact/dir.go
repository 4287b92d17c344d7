package artifact

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// uploadsDir holds unfinished objects below the key they are for. No key begins with a dot.
const uploadsDir = ".uploads"

// Dir is a Store in a folder of the local file system: an object is a file, put in place by an atomic rename.
// No key leads out of the folder, not even through a symbolic link.
type Dir struct {
	space
	root *os.Root
}

var _ Store = (*Dir)(nil)

// NewDir opens the store in the folder at path (absolute), which is made if missing.
func NewDir(folder string) (*Dir, error) {
	if !filepath.IsAbs(folder) {
		return nil, &Error{Op: "open store", URI: folder, Err: ErrInvalidKey, Detail: "the path is not absolute"}
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	return &Dir{space{url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Clean(folder))}}, root}, nil
}

// Put implements Store.
func (d *Dir) Put(ctx context.Context, key string, body io.ReadSeeker, progress Progress) (Ref, error) {
	dig := newDigester(ctxReader{ctx, body}, progress)
	temp, err := d.upload(ctx, key, dig)
	if err != nil {
		return Ref{}, d.fail(ctx, "put", key, err)
	}
	defer d.discard(temp)
	if err := d.place(key, func() error { return d.root.Rename(temp, key) }); err != nil {
		return Ref{}, d.fail(ctx, "put", key, err)
	}
	return dig.ref(d.uri(key)), nil
}

// PutIfAbsent implements Store: a hard link to the finished file appears whole, or not at all where one stands.
func (d *Dir) PutIfAbsent(ctx context.Context, key string, body []byte) (Ref, error) {
	temp, err := d.upload(ctx, key, ctxReader{ctx, bytes.NewReader(body)})
	if err != nil {
		return Ref{}, d.fail(ctx, "put", key, err)
	}
	defer d.discard(temp)
	err = d.place(key, func() error { return d.root.Link(temp, key) })
	if errors.Is(err, fs.ErrExist) {
		return d.standing(ctx, key, body)
	}
	if err != nil {
		return Ref{}, d.fail(ctx, "put", key, err)
	}
	return refOf(d.uri(key), body), nil
}

// standing decides what it means that something stands where body was to go.
func (d *Dir) standing(ctx context.Context, key string, body []byte) (Ref, error) {
	info, err := d.root.Stat(key)
	if errors.Is(err, syscall.ENOTDIR) || err == nil && info.IsDir() {
		return Ref{}, d.fail(ctx, "put", key, syscall.EISDIR)
	}
	return compare(ctx, d, d.uri(key), key, body)
}

// Open implements Store.
func (d *Dir) Open(ctx context.Context, ref Ref) (io.ReadCloser, error) {
	key, err := d.key(ref)
	if err != nil {
		return nil, err
	}
	f, err := d.open(ctx, "open", key)
	if err != nil {
		return nil, err
	}
	return Verify(readCloser{ctxReader{ctx, f}, f}, ref), nil
}

// Get implements Store.
func (d *Dir) Get(ctx context.Context, key string, limit int64) ([]byte, Ref, error) {
	f, err := d.open(ctx, "get", key)
	if err != nil {
		return nil, Ref{}, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(ctxReader{ctx, f}, limit+1))
	if err != nil {
		return nil, Ref{}, d.fail(ctx, "get", key, err)
	}
	if int64(len(body)) > limit {
		return nil, Ref{}, tooLong("get", d.uri(key), limit)
	}
	return body, refOf(d.uri(key), body), nil
}

// List implements Store.
func (d *Dir) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return listAll(ctx, d.space, prefix, func(prefix string) ([]Info, error) {
		start := prefix
		if start == "" {
			start = "."
		}
		found, err := d.walk(ctx, start)
		if err != nil {
			return nil, d.fail(ctx, "list", prefix, err)
		}
		return found, nil
	})
}

// walk finds the regular files at or below start; what vanishes meanwhile was deleted.
func (d *Dir) walk(ctx context.Context, start string) ([]Info, error) {
	var found []Info
	err := fs.WalkDir(d.root.FS(), start, func(name string, entry fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if name == uploadsDir && start == "." {
			return fs.SkipDir
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		info, err := entry.Info()
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		found = append(found, Info{Key: name, Bytes: info.Size()})
		return nil
	})
	return found, err
}

// Delete implements Store.
func (d *Dir) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := d.ready(ctx, "delete", key); err != nil {
			return err
		}
		if info, err := d.root.Lstat(key); err == nil && info.IsDir() {
			continue // no such object, though there are some below it
		}
		err := d.root.Remove(key)
		if gone(err) {
			continue
		}
		if err != nil {
			return d.fail(ctx, "delete", key, err)
		}
		d.prune(path.Dir(key))
	}
	return nil
}

// AbortUploads implements Store.
func (d *Dir) AbortUploads(ctx context.Context, prefix string) (int, error) {
	prefix, err := checkPrefix(prefix)
	if err == nil {
		err = interrupted(ctx, "abort uploads", d.uri(prefix))
	}
	if err != nil {
		return 0, err
	}
	start := path.Join(uploadsDir, prefix)
	left, err := d.walk(ctx, start)
	if err == nil {
		err = d.root.RemoveAll(start)
	}
	if err != nil {
		return 0, d.fail(ctx, "abort uploads", prefix, err)
	}
	return len(left), nil
}

// Check implements Store.
func (d *Dir) Check(ctx context.Context) error { return checkStore(ctx, d) }

// upload writes body to a file of its own and returns its name.
func (d *Dir) upload(ctx context.Context, key string, body io.Reader) (string, error) {
	if err := d.ready(ctx, "put", key); err != nil {
		return "", err
	}
	temp := path.Join(uploadsDir, key, rand.Text())
	var f *os.File
	err := d.inFolder(path.Dir(temp), func() (err error) {
		f, err = d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		return err
	})
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, body)
	if err == nil {
		err = f.Sync() // before the rename: after a crash there is the whole object or none
	}
	if err = errors.Join(err, f.Close()); err != nil {
		d.discard(temp)
		return "", err
	}
	return temp, nil
}

// discard removes an upload's file, where it was not renamed, and the folders that it alone needed.
func (d *Dir) discard(temp string) {
	_ = d.root.Remove(temp) // gone after a rename; otherwise AbortUploads will find it
	d.prune(path.Dir(temp))
}

// prune removes folders upwards while they are empty, so that their names are free for keys.
func (d *Dir) prune(folder string) {
	for folder != "." && d.removeFolder(folder) == nil {
		folder = path.Dir(folder)
	}
}

// removeFolder removes an empty folder and nothing else: Remove would also take an object put there meanwhile.
func (d *Dir) removeFolder(folder string) error {
	parent, err := d.root.Open(path.Dir(folder))
	if err != nil {
		return err
	}
	defer parent.Close()
	return unix.Unlinkat(int(parent.Fd()), path.Base(folder), unix.AT_REMOVEDIR)
}

// inFolder makes a folder and calls do, again if a prune beside us has removed the folder in between.
func (d *Dir) inFolder(folder string, do func() error) (err error) {
	for range 64 {
		err = d.root.MkdirAll(folder, 0o755)
		pruned := errors.Is(err, fs.ErrExist) && d.missing(folder) // between mkdir's "exists" and MkdirAll's look at it
		if err == nil {
			err = do()
		}
		if !pruned && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("folder %s is removed again and again: %w", folder, syscall.ENOENT)
}

// missing reports that nothing but folders, if that, stands on the way to a folder and at its place.
func (d *Dir) missing(folder string) bool {
	info, err := d.root.Lstat(folder)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir()
}

// place lets do put a file under key and makes that durable.
func (d *Dir) place(key string, do func() error) error {
	folder := path.Dir(key)
	if err := d.inFolder(folder, do); err != nil {
		return err
	}
	f, err := d.root.Open(folder)
	if gone(err) { // deleted already
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *Dir) open(ctx context.Context, op, key string) (*os.File, error) {
	if err := d.ready(ctx, op, key); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe put here by hand must not hang us
	if err != nil {
		return nil, d.fail(ctx, op, key, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(d.fail(ctx, op, key, err), f.Close())
	}
	return f, nil
}

func (d *Dir) ready(ctx context.Context, op, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	return interrupted(ctx, op, d.uri(key))
}

// gone reports that a path leads nowhere, be it through a file.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// fail classes an error of the file system.
func (d *Dir) fail(ctx context.Context, op, key string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if ctxErr := interrupted(ctx, op, d.uri(key)); ctxErr != nil {
		return ctxErr
	}
	e := &Error{Op: op, URI: d.uri(key), Err: ErrUnavailable, Detail: err.Error()}
	nested := errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist)
	switch {
	case op == "put" && nested:
		e.Err, e.Detail = ErrInvalidKey, "an object stands above or below it"
	case op != "put" && (gone(err) || nested):
		e.Err, e.Detail = ErrNotFound, ""
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), strings.Contains(err.Error(), "path escapes"):
		e.Err = ErrDenied
	case !isSystem(err):
		return fmt.Errorf("%s %s: %w", op, e.URI, err) // of the body that was to be stored
	}
	return e
}

func isSystem(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

type readCloser struct {
	io.Reader
	io.Closer
}
