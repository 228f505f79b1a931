//! Spillway's model of the world outside: in memory for the simulation, its EC2 served over HTTP by the lab.
//! Everything here is plain data and functions: no async, no clock, no randomness but a seed.

pub mod ec2;
