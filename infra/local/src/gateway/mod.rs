mod answer;
mod event;
mod token;
