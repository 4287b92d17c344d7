package setup

import (
	"bytes"
	"encoding/base64"
	"html"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
)

// maxNesting bounds multipart within multipart; mails nest two or three deep.
const maxNesting = 8

// mailText returns what a reader of a raw mail sees: the subject, a line break, and the text of the body. Real mail
// breaks every rule there is, spam more so: what cannot be decoded is kept as it stands, nothing is an error.
func mailText(raw []byte) string {
	header, body := splitHeader(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")))
	return tidy(decodeWords(header["subject"])) + "\n" + tidy(bodyText(header, body, 0))
}

// splitHeader parses the header up to the first empty line. Keys are lower-case, the first of equals wins, folded lines
// are joined; lines that are no header field (mbox's "From " line) are skipped.
func splitHeader(raw []byte) (map[string]string, []byte) {
	head, body, _ := bytes.Cut(raw, []byte("\n\n"))
	header := map[string]string{}
	key, fresh := "", false
	for line := range strings.SplitSeq(string(head), "\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if key != "" && fresh {
				header[key] += " " + strings.TrimSpace(line)
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.ContainsAny(name, " \t") {
			key = ""
			continue
		}
		key = strings.ToLower(name)
		if _, fresh = header[key]; fresh {
			fresh = false
			continue
		}
		fresh = true
		header[key] = strings.TrimSpace(value)
	}
	return header, body
}

// bodyText decodes a body, or a part of one, by its header.
func bodyText(header map[string]string, body []byte, depth int) string {
	kind, params := contentType(header["content-type"])
	switch {
	case strings.HasPrefix(kind, "multipart/") && params["boundary"] != "" && depth < maxNesting:
		return partsText(kind, params["boundary"], body, depth)
	case kind == "message/rfc822" && depth < maxNesting:
		inner, innerBody := splitHeader(body)
		return decodeWords(inner["subject"]) + "\n" + bodyText(inner, innerBody, depth+1)
	case strings.HasPrefix(kind, "text/") || strings.HasPrefix(kind, "multipart/"):
		text := decodeCharset(decodeTransfer(header["content-transfer-encoding"], body), params["charset"])
		if kind == "text/html" {
			text = stripHTML(text)
		}
		return text
	default:
		return "" // an attachment
	}
}

// contentType parses the field; what cannot be parsed counts as plain text, as the standard says for a missing one.
func contentType(field string) (kind string, params map[string]string) {
	kind, params, err := mime.ParseMediaType(field)
	if kind == "" || err != nil && params == nil && !strings.Contains(kind, "/") {
		return "text/plain", nil
	}
	return kind, params
}

// partsText joins the parts' texts; of alternatives it takes the plain one, else the last that has text.
func partsText(kind, boundary string, body []byte, depth int) string {
	var texts []string
	plain := -1
	for r := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := r.NextRawPart()
		if err != nil {
			break // the end, or a mail cut short: what was read counts
		}
		content, _ := io.ReadAll(part) // cut short like above
		header := map[string]string{}
		for key, values := range part.Header {
			header[strings.ToLower(key)] = values[0]
		}
		text := bodyText(header, content, depth+1)
		if strings.TrimSpace(text) == "" {
			continue
		}
		if partKind, _ := contentType(header["content-type"]); partKind == "text/plain" && plain < 0 {
			plain = len(texts)
		}
		texts = append(texts, text)
	}
	switch {
	case len(texts) == 0:
		return ""
	case kind != "multipart/alternative":
		return strings.Join(texts, "\n")
	case plain >= 0:
		return texts[plain]
	default:
		return texts[len(texts)-1]
	}
}

// decodeTransfer undoes quoted-printable and base64; where the data is damaged, what came before counts.
func decodeTransfer(encoding string, body []byte) []byte {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "quoted-printable":
		decoded, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(body)))
		if err != nil && len(decoded) < len(body)/2 {
			return body
		}
		return decoded
	case "base64":
		decoded, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(body)))
		if err != nil && len(decoded) == 0 {
			return body
		}
		return decoded
	default:
		return body
	}
}

// decodeCharset returns valid UTF-8. Bytes that are UTF-8 already stay, whatever the mail says; an unknown character set
// is read as windows-1252, which every byte decodes in, as browsers do.
func decodeCharset(data []byte, charset string) string {
	if utf8.Valid(data) && !shiftsByEscape(charset) {
		return string(data)
	}
	if enc, err := htmlindex.Get(charset); err == nil {
		if text, err := enc.NewDecoder().Bytes(data); err == nil {
			return strings.ToValidUTF8(string(text), "\uFFFD")
		}
	}
	text, err := charmap.Windows1252.NewDecoder().Bytes(data)
	if err != nil {
		return strings.ToValidUTF8(string(data), "\uFFFD")
	}
	return string(text)
}

// shiftsByEscape names the character sets whose bytes are all ASCII, and thus always valid UTF-8.
func shiftsByEscape(charset string) bool {
	return strings.HasPrefix(strings.ToLower(charset), "iso-2022-")
}

// decodeWords decodes =?charset?q?…?= in a header field.
func decodeWords(field string) string {
	words := mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
		data, err := io.ReadAll(in)
		return strings.NewReader(decodeCharset(data, charset)), err
	}}
	if text, err := words.DecodeHeader(field); err == nil {
		field = text
	}
	return decodeCharset([]byte(field), "")
}

var (
	htmlUnseen = regexp.MustCompile(`(?is)<!--.*?-->|<(script|style|head)\b.*?</(script|style|head)\s*>`)
	htmlBreak  = regexp.MustCompile(`(?i)<(br|p|div|tr|li|h[1-6]|table)\b[^>]*>`)
	htmlTag    = regexp.MustCompile(`(?s)<[!/?a-zA-Z][^>]*>`)
	blanks     = regexp.MustCompile(`[^\S\n]+`)
	lineBreaks = regexp.MustCompile(` ?\n\s*`)
)

// stripHTML keeps the text between the tags. It is a filter for a data set, not a parser.
func stripHTML(text string) string {
	text = htmlUnseen.ReplaceAllString(text, " ")
	text = htmlBreak.ReplaceAllString(text, "\n")
	return html.UnescapeString(htmlTag.ReplaceAllString(text, " "))
}

// tidy collapses white space and drops control characters.
func tidy(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		if unicode.IsSpace(r) && r != '\n' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return strings.TrimSpace(lineBreaks.ReplaceAllString(blanks.ReplaceAllString(text, " "), "\n"))
}
