package setup

import (
	"strings"
	"testing"
)

func TestMailText(t *testing.T) {
	tests := []struct {
		name string
		raw  string
		want string
	}{
		{"plain", "From x Thu Aug 22\nSubject: Hello\nTo: a@b\n\nLine one.\nLine  two.\n", "Hello\nLine one.\nLine two."},
		{"carriage returns", "Subject: a\r\n\r\nb\r\nc\r\n", "a\nb\nc"},
		{"no subject", "To: a@b\n\nbody\n", "\nbody"},
		{"no body", "Subject: alone\n", "alone\n"},
		{"folded subject, the first counts", "Subject: one\n two\nSubject: three\n four\n\nx", "one two\nx"},
		{"encoded words", "Subject: =?iso-8859-1?q?caf=E9?= =?utf-8?b?4oKs?=\n\nx", "café€\nx"},
		{"unknown character set", "Subject: =?nonsense?q?caf=E9?=\n\nx", "café\nx"},
		{"quoted-printable", "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nna=EFve a=\nnd so on", "\nnaïve and so on"},
		{"base64", "Content-Transfer-Encoding: base64\n\naGVsbG8=\n", "\nhello"},
		{"base64, cut short", "Content-Transfer-Encoding: base64\n\naGVsbG8gd29ybG\n", "\nhello wor"},
		{"windows-1252 that calls itself ascii", "Content-Type: text/plain; charset=us-ascii\n\nit\x92s", "\nit’s"},
		{"escapes that are valid UTF-8", "Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B$\"\x1b(B", "\nあ"},
		{"HTML", "Content-Type: text/html\n\n<html><head><title>no</title></head><style>p {}</style><p>Buy &amp; <b>win</b><br>now<!-- not this --></html>",
			"\nBuy & win\nnow"},
		{"attachment", "Content-Type: image/gif\nContent-Transfer-Encoding: base64\n\nR0lGODlh\n", "\n"},
		{"broken content type", "Content-Type: ;;;\n\nstill text", "\nstill text"},
		{"control characters", "Subject: a\x00b\n\nx\x07y\tz", "ab\nxy z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := mailText([]byte(tt.raw)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestMailTextOfParts(t *testing.T) {
	multipart := func(kind string, parts ...string) string {
		return "Subject: s\nContent-Type: multipart/" + kind + "; boundary=\"b\"\n\npreamble\n--b\n" + strings.Join(parts, "\n--b\n") + "\n--b--\n"
	}
	const plain, rich, image = "Content-Type: text/plain\n\nplain text", "Content-Type: text/html\n\n<p>rich text", "Content-Type: image/png\n\nPNG"
	tests := []struct {
		name string
		raw  string
		want string
	}{
		{"alternative: the plain one", multipart("alternative", rich, plain), "s\nplain text"},
		{"alternative: no plain one", multipart("alternative", image, rich), "s\nrich text"},
		{"mixed: all text", multipart("mixed", plain, image, rich), "s\nplain text\nrich text"},
		{"only an image", multipart("mixed", image), "s\n"},
		{"a mail within", multipart("mixed", "Content-Type: message/rfc822\n\nSubject: inner\n\ninner body"), "s\ninner\ninner body"},
		{"cut short", strings.TrimSuffix(multipart("mixed", plain), "\n--b--\n"), "s\nplain text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := mailText([]byte(tt.raw)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// FuzzMailText: whatever a mail holds, the row is valid text of bounded size.
func FuzzMailText(f *testing.F) {
	f.Add([]byte("Subject: =?utf-8?q?x?=\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--"))
	f.Add([]byte("Content-Type: text/html; charset=gb2312\n\n<p \xff>&#x110000;"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := mailText(raw)
		if got != strings.ToValidUTF8(got, "") {
			t.Errorf("%q is not valid UTF-8", got)
		}
		if len(got) > 64*len(raw)+64 {
			t.Errorf("%d bytes became %d", len(raw), len(got))
		}
	})
}
