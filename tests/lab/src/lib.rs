//! The local cloud: everything Spillway meets in a site and in AWS, on one machine, with real parts.

pub mod authorize;
pub mod cloud;
pub mod demo;
pub mod deploy;
pub mod ec2_api;
pub mod emulator;
pub mod event_bus;
pub mod faults;
pub mod head;
pub mod hypervisor;
pub mod install;
pub mod instances;
pub mod journal;
pub mod lab;
pub mod network;
pub mod process;
pub mod proxy;
pub mod region;
mod root_fs;
pub mod site;
pub mod ssm;
pub mod standing;
pub mod tls;
pub mod xml;
