//! The router as clients meet it, on a real encoder (tiny, random weights) and a real model folder.

mod accuracy;
mod auth;
mod compat;
mod dashboard;
mod evaluate;
mod examples;
mod fixture;
mod fuzz;
mod measured;
mod models;
mod openapi;
mod operation;
mod outage;
mod people;
mod queries;
mod refusals;
mod score;
mod serving;
mod states;
mod storage;
mod tournament;
mod users;
