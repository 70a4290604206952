package main

import (
	"bytes"
	"strconv"
)

var (
	headEnd    = []byte("\r\n\r\n")
	lastChunk  = []byte("\r\n0\r\n\r\n")
	lengthName = []byte("\r\ncontent-length:")
	chunked    = []byte("\r\ntransfer-encoding: chunked")
)

// parse returns the status of the one answer in `text`, and whether it is whole.
func parse(text []byte) (status int, whole bool) {
	end := bytes.Index(text, headEnd)
	if end < 12 {
		return 0, false
	}
	status, _ = strconv.Atoi(string(text[9:12]))
	head, body := text[:end+2], text[end+4:]
	if at := indexFold(head, lengthName); at >= 0 {
		line := head[at+len(lengthName):]
		length, _ := strconv.Atoi(string(bytes.TrimSpace(line[:bytes.IndexByte(line, '\r')])))
		return status, len(body) >= length
	}
	if indexFold(head, chunked) >= 0 {
		return status, bytes.HasSuffix(text, lastChunk)
	}
	return status, true
}

// indexFold is bytes.Index for a lower-case name, whatever the case of the text.
func indexFold(text, name []byte) int {
	for at := 0; at+len(name) <= len(text); at++ {
		if text[at] == '\r' && bytes.EqualFold(text[at:at+len(name)], name) {
			return at
		}
	}
	return -1
}
