package ublk

import (
	"crypto/sha256"
	"encoding/binary"
)

// A cookie is kept by the kernel with each device and says whose it is:
//
//	63     56 55        40 39                                    0
//	| magic  | owner      | disk                                  |
//
// owner is a hash of the state dir's id, disk one of the disk's name. Two disks of one owner with the same cookie would
// be taken for each other, so the second one is refused.
const (
	cookieMagic = 0xd7 << 56
	ownerMask   = 0xffffff << 40
)

func hash(s string) uint64 {
	h := sha256.Sum256([]byte(s))
	return binary.LittleEndian.Uint64(h[:])
}

// ownerCookie is the part that all devices of an owner share.
func ownerCookie(owner string) uint64 { return cookieMagic | hash(owner)&0xffff<<40 }

func diskCookie(owner uint64, disk string) uint64 { return owner | hash(disk)&^uint64(ownerMask) }

// ours tells whether a device was made by this owner.
func ours(cookie, owner uint64) bool { return cookie&ownerMask == owner }
