package hubtest

import (
	"crypto/sha1" //nolint:gosec // git's object ids are SHA-1
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
)

// lfsExt are the extensions that .gitattributes of a new repository puts into large file storage.
var lfsExt = []string{".safetensors", ".parquet", ".bin", ".h5", ".onnx", ".msgpack", ".pt", ".zip"}

// entry is a file of a revision.
type entry struct {
	path   string // in the repository
	file   string // on the disk
	size   int64
	oid    string // of the git blob; of the pointer, for a large file
	sha256 string // "" for a small file
}

// pointer is what git holds in place of a large file.
func pointer(sha string, size int64) []byte {
	return fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", sha, size)
}

func gitOID(content []byte) string {
	h := sha1.New() //nolint:gosec // see above
	_, _ = fmt.Fprintf(h, "blob %d\x00", len(content))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// repo is a folder of revisions. typ is "models" or "datasets".
type repo struct{ typ, name, dir string }

// key is what Gate and Hide call the repository.
func (r repo) key() string { return r.typ + "/" + r.name }

// revision finds a branch, or the branch whose commit rev is. The error is fs.ErrNotExist.
func (r repo) revision(digests *digests, rev string) (commit string, entries []entry, err error) {
	branches, err := os.ReadDir(r.dir)
	if err != nil {
		return "", nil, err
	}
	for _, b := range branches {
		name, err := url.PathUnescape(b.Name())
		if err != nil || !b.IsDir() {
			continue
		}
		if len(rev) != 40 && name != rev {
			continue
		}
		commit, entries, err := r.read(digests, filepath.Join(r.dir, b.Name()))
		if err != nil {
			return "", nil, err
		}
		if name == rev || commit == rev {
			return commit, entries, nil
		}
	}
	return "", nil, fs.ErrNotExist
}

// read lists a revision's files. The commit is a digest of their names and contents.
func (r repo) read(digests *digests, dir string) (commit string, entries []entry, err error) {
	h := sha1.New() //nolint:gosec // stands for a commit id
	_, _ = io.WriteString(h, r.key())
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		e, err := digests.entry(filepath.ToSlash(rel), p)
		if err != nil {
			return err
		}
		entries = append(entries, e)
		_, _ = fmt.Fprintf(h, "\x00%s\x00%s", e.path, e.oid)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), entries, err
}

// digests remembers what files hash to, by name, size and time: weights are large.
type digests struct{ seen sync.Map }

type digestKey struct {
	file  string
	size  int64
	mtime int64
}

func (d *digests) entry(name, file string) (entry, error) {
	info, err := os.Stat(file)
	if err != nil {
		return entry{}, err
	}
	key := digestKey{file, info.Size(), info.ModTime().UnixNano()}
	if e, ok := d.seen.Load(key); ok {
		return e.(entry), nil
	}
	e := entry{path: name, file: file, size: info.Size()}
	if slices.Contains(lfsExt, path.Ext(name)) {
		f, err := os.Open(file)
		if err != nil {
			return entry{}, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return entry{}, err
		}
		e.sha256 = hex.EncodeToString(h.Sum(nil))
		e.oid = gitOID(pointer(e.sha256, e.size))
	} else {
		content, err := os.ReadFile(file)
		if err != nil {
			return entry{}, err
		}
		e.oid = gitOID(content)
	}
	d.seen.Store(key, e)
	return e, nil
}
